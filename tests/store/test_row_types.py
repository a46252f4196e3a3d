"""A stored row with a value of another kind is named with its file, by every command that reads it."""

import json
from dataclasses import fields

import pytest
from builders.rows import a_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.cli.main import main
from bench.rows.row_types import invalid_value, kinds_of_fields
from bench.rows.store import Store, row_of
from engines.core.errors import ShardbenchError
from engines.core.row import Row

VALUES = [None, True, 3, -1, 0.5, 10**30, "x", "", "\udcff", "[/b]", [], [1], [None], ["x"], {}, {"a": 1}]
COMMANDS = [
    ["results", "list"],
    ["results", "export", "format=markdown"],
    ["report", "out=o", "figures=none", "format=csv"],
    ["dashboard", "out=o.html"],
]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([each.name for each in fields(Row)]), value=st.sampled_from(VALUES))
def test_a_row_with_any_value_is_read_or_named(tmp_path, monkeypatch, capfd, name, value):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s" / "rows").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(a_row(point_id="b", latency_s=1.0).to_dict() | {name: value}), json.dumps(a_row().to_dict())]
    (tmp_path / "s" / "rows" / "a.jsonl").write_text("\n".join(lines) + "\n")
    for words in COMMANDS:
        code = main([*words, "results_dir=s"])
        err = capfd.readouterr().err
        assert code in (0, 2), err
        assert code == 0 or "a.jsonl line 1" in err


@pytest.mark.parametrize("field", [each.name for each in fields(Row)])
def test_every_field_has_its_kinds(field):
    kinds = kinds_of_fields()[field]
    values = {str: "ok", int: 3, float: 0.5, bool: True, list: [], dict: {}, type(None): None}
    wrong = [value for kind, value in values.items() if kind not in kinds and not (kind is int and float in kinds)]
    for value in wrong:
        with pytest.raises(ShardbenchError, match=field):
            row_of(json.dumps(a_row().to_dict() | {field: value}))


def test_rows_that_the_harness_makes_are_valid(tmp_path):
    row = a_row(samples_s=[1, 2.5], latency_s=1, mesh_shape=[1, 2], versions={"jax": "é"}, details={"a": [None, {}]})
    Store(tmp_path).append([row])
    assert Store(tmp_path).load() == [row]
    assert invalid_value(row) is None
