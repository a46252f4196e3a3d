"""Pivot tables of rows: one row a cell or the cell says how many, kinds of evidence apart, nothing left out."""

import json
import math
from dataclasses import replace

import pytest
from builders.rows import a_row
from hypothesis import given
from hypothesis import strategies as st

from bench.cli.main import main
from bench.report.own.pivot import MOST_COLUMNS, Question, conditions, pivot
from bench.rows.store import Store
from bench.rows.table import to_csv, to_markdown
from engines.core.errors import InvalidRequest


def row(**changes):
    asked = {"model": "tiny", "hw": "h200", "batch_size": 8, "latency_s": 1.0, "status": "ok", "valid": True}
    return a_row(**{"source": "measured", **asked, **changes})


def cells(table):
    """Line → its cells, without the keys of lines."""
    keys = [column.key for column in table.columns if not column.spec]
    return {
        tuple(line[key] for key in keys): {key: value for key, value in line.items() if key not in keys}
        for line in table.rows
    }


def test_one_row_a_cell_and_a_cell_of_several_says_how_many():
    rows = [row(latency_s=2.0), row(batch_size=16, latency_s=3.0), row(batch_size=16, latency_s=5.0, num_chips=4)]
    table = pivot(rows, Question(rows=["model"], columns=["batch_size"], value="latency_s"))
    assert cells(table) == {("tiny",): {"batch_size=8": 2.0, "batch_size=16": "2 rows"}}
    assert "Up to 2 rows meet in a cell, which differ in num_chips" in table.note
    assert "| tiny | 2 | 2 rows |" in to_markdown(table)


@pytest.mark.parametrize(
    ("aggregate", "value"), [("median", 4.0), ("mean", 5.0), ("min", 1.0), ("max", 10.0), ("count", 3)]
)
def test_an_aggregate_is_of_the_values_and_says_over_what(aggregate, value):
    rows = [row(latency_s=seconds, output_len=length) for seconds, length in ((1.0, 1), (4.0, 2), (10.0, 3))]
    table = pivot(rows, Question(rows=["model"], value="latency_s", aggregate=aggregate))
    assert table.rows[0]["latency_s"] == value
    assert table.note == "A cell is over up to 3 rows, which differ in output_len."


def test_kinds_of_evidence_never_share_a_cell():
    rows = [row(), row(source="predicted", engine="analytic", latency_s=2.0)]
    table = pivot(rows, Question(rows=["model"], value="latency_s", aggregate="mean"))
    assert cells(table) == {("tiny", "measured"): {"latency_s": 1.0}, ("tiny", "predicted"): {"latency_s": 2.0}}
    assert "source was added" in table.note
    for question in (
        Question(rows=["model", "source"], value="latency_s"),
        Question(rows=["model"], columns=["source"], value="latency_s"),
        Question(rows=["model"], value="latency_s", where={"source": ["measured"]}),
    ):
        assert "source was added" not in pivot(rows, question).note


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "oom", "valid": False, "latency_s": None}, "oom"),
        ({"status": "failed", "valid": False, "latency_s": None}, "failed"),
        ({"valid": False}, "not valid"),
        ({"latency_s": math.nan}, "no value"),
        ({"latency_s": math.inf}, "no value"),
    ],
)
def test_a_row_without_a_value_is_named_and_in_no_aggregate(changes, said):
    question = Question(rows=["batch_size"], value="latency_s", aggregate="max")
    table = pivot([row(latency_s=2.0), row(**changes), row(batch_size=16, **changes)], question)
    assert cells(table) == {(8,): {"latency_s": 2.0}, (16,): {"latency_s": said}}
    assert f"2 rows without a valid latency_s count in no value (2 {said})." in table.note
    only_failed = pivot([row(**changes)], question)
    assert cells(only_failed) == {(8,): {"latency_s": said}}
    assert f",{said}" in to_csv(only_failed)


def test_a_rate_of_a_server_counts_though_it_has_no_time():
    served = row(phase="serve", latency_s=None, tokens_per_s=100.0)
    assert pivot([served], Question(rows=["model"], value="tokens_per_s")).rows[0]["tokens_per_s"] == 100.0


def test_lines_and_columns_are_in_the_order_of_numbers():
    rows = [row(batch_size=size, num_chips=chips) for size in (128, 8, 16) for chips in (16, 2, 8)]
    table = pivot(rows, Question(rows=["batch_size"], columns=["num_chips"], value="latency_s"))
    assert [line["batch_size"] for line in table.rows] == [8, 16, 128]
    assert [column.title for column in table.columns[1:]] == ["num_chips=2", "num_chips=8", "num_chips=16"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([1, 2]), st.sampled_from(["measured", "predicted"]),
                          st.floats(0.1, 9.0)), min_size=1, max_size=12))  # fmt: skip
def test_every_row_is_in_one_cell(drawn):
    rows = [
        row(model=model, batch_size=size, source=source, latency_s=seconds, point_id=str(place))
        for place, (model, size, source, seconds) in enumerate(drawn)
    ]
    counts = pivot(rows, Question(rows=["model"], columns=["batch_size"], value="latency_s", aggregate="count"))
    totals = [value for line in cells(counts).values() for value in line.values()]
    assert sum(totals) == len(rows)
    plain = pivot(rows, Question(rows=["model"], columns=["batch_size"], value="latency_s"))
    shown = [value for line in cells(plain).values() for value in line.values()]
    assert [value for value in shown if not isinstance(value, str)] == [
        rows[places[0]].latency_s for places in _groups(drawn) if len(places) == 1
    ]


def _groups(drawn):
    """Places by cell, in the order of lines and columns."""
    one = len({source for *_, source, _ in drawn}) == 1
    keys = [(model, "" if one else source, size) for model, size, source, _ in drawn]
    return [[place for place, each in enumerate(keys) if each == key] for key in sorted(set(keys))]


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"rows": ["modell"]}, "model"),
        ({"rows": []}, "at least one key"),
        ({"value": "hw"}, "no number"),
        ({"value": "latency"}, "latency_s"),
        ({"columns": ["model"]}, "twice"),
        ({"aggregate": "sum"}, "median"),
        ({"where": {"phse": ["decode"]}}, "phase"),
        ({"where": {"hw": ["b200"]}}, "where=[hw=b200]"),
    ],
)
def test_a_wrong_question_names_what_is_wrong(asked, named):
    with pytest.raises(InvalidRequest, match=r".") as found:
        pivot([row()], Question(**{"rows": ["model"], "value": "latency_s", **asked}))
    assert named in str(found.value)


def test_too_many_columns_are_refused():
    rows = [row(batch_size=size) for size in range(1, MOST_COLUMNS + 2)]
    with pytest.raises(InvalidRequest, match=f"has {MOST_COLUMNS + 1} values"):
        pivot(rows, Question(rows=["model"], columns=["batch_size"], value="latency_s"))


def test_conditions_are_texts_as_a_user_types_them():
    assert conditions(["hw=h200", "hw=b200", "mesh_shape=[4,4]"]) == {"hw": ["h200", "b200"], "mesh_shape": ["[4,4]"]}
    with pytest.raises(InvalidRequest, match="is not key=value"):
        conditions(["h200"])
    mesh = [row(mesh_shape=[4, 4]), row(mesh_shape=[2, 8], latency_s=2.0)]
    question = Question(rows=["mesh_shape"], value="latency_s", where=conditions(["mesh_shape=[4,4]"]))
    assert cells(pivot(mesh, question)) == {("[4,4]",): {"latency_s": 1.0}}


def test_the_command_prints_and_writes_the_table(tmp_path, capsys):
    Store(tmp_path / "store").append([row(point_id="a"), row(point_id="b", hw="b<2>|00", latency_s=2.0)])
    words = ["report", "pivot", f"results_dir={tmp_path / 'store'}", f"out={tmp_path}", "rows=hw", "value=latency_s"]
    assert main(words) == 0
    assert "| h200 | 1 |" in capsys.readouterr().out
    for ending in ("md", "html", "tex"):
        assert (tmp_path / "pivot" / f"pivot.{ending}").is_file()
    assert "b&lt;2&gt;|00" in (tmp_path / "pivot" / "pivot.html").read_text(encoding="utf-8")
    assert main([*words, "print=json", "where=[hw=h200]"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pivot"]["rows"] == [{"hw": "h200", "latency_s": 1.0}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pivot", "rows=model"], "value=: is required for pivot"),
        (["pivot", "value=mfu"], "rows=: is required for pivot"),
        (["rows=model"], "is a key of the verb pivot"),
        (["paper", "template=x.md.j2"], "without paper"),
        (["pivot", "rows=model", "value=mfu", "where=[hw]"], "is not key=value"),
    ],
)
def test_keys_that_would_not_be_read_are_refused(tmp_path, capsys, words, said):
    Store(tmp_path).append([row(point_id="a")])
    assert main(["report", *words, f"results_dir={tmp_path}", f"out={tmp_path / 'out'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_rows_that_only_differ_in_what_is_asked_of_them_are_told(tmp_path):
    same = row()
    table = pivot([same, replace(same, point_id="b")], Question(rows=["model"], value="latency_s", aggregate="mean"))
    assert table.note == "A cell is over up to 2 rows."
