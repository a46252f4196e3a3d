"""What the browser gets of the rows: columns that decode to them, whole rows in chunks, files replaced as a whole."""

import base64
import gzip
import json
import math
import sys

import numpy as np
import pytest
from builders.rows import a_row
from builders.site_rows import HOSTILE, rows_of_all_kinds
from hypothesis import given
from hypothesis import strategies as st

from bench.cli.main import main
from bench.compare.verdicts import Rules
from bench.dashboard.bundle import folder, one_file, scripts
from bench.dashboard.columns import columns, outcome
from bench.dashboard.details import CHUNK, chunks
from bench.dashboard.read import read
from bench.dashboard.write import write
from bench.rows.store import Store

NUMBERS = st.none() | st.floats() | st.sampled_from([0.0, 1.0, 2.0**60])


def decoded(column):
    """The values of a column, as rows.js reads them."""
    if "numbers" in column:
        found = np.frombuffer(base64.b64decode(column["numbers"]), "<f8").tolist()
        return [None if math.isnan(value) else value for value in found]
    codes = np.frombuffer(base64.b64decode(column["codes"]), f"<u{column['bits'] // 8}")
    return [column["values"][code] for code in codes]


def columns_of(rows):
    content = columns(rows, [""] * len(rows), {})
    assert content["length"] == len(rows)
    return {each["name"]: decoded(each) for each in content["columns"]}


@given(st.lists(NUMBERS, min_size=1, max_size=400), st.lists(st.text(max_size=3), min_size=1, max_size=20))
def test_columns_hold_the_values_of_the_rows(numbers, texts):
    rows = [a_row(latency_s=value, model=texts[place % len(texts)]) for place, value in enumerate(numbers)]
    found = columns_of(rows)
    wanted = [value if value is not None and math.isfinite(value) else None for value in numbers]
    assert found.get("latency_s", [None] * len(rows)) == wanted
    assert found.get("model", [None] * len(rows)) == [row.model or None for row in rows]
    assert "mfu" not in found  # nothing is told of what no row has


def test_many_distinct_numbers_are_not_a_dictionary():
    rows = [a_row(latency_s=1 / (n + 1), batch_size=n % 7 + 1) for n in range(2000)]
    content = {each["name"]: each for each in columns(rows, [""] * 2000, {})["columns"]}
    assert "numbers" in content["latency_s"]
    assert content["batch_size"]["values"] == [1, 2, 3, 4, 5, 6, 7]
    assert decoded(content["latency_s"]) == [row.latency_s for row in rows]


def test_out_of_memory_is_an_outcome_of_its_own():
    told = {outcome(row) for row in rows_of_all_kinds()}
    assert told == {"valid", "not valid", "out of memory", "unsupported", "failed", "timeout"}


def test_chunks_hold_whole_rows_and_nothing_that_is_no_json():
    rows = [a_row(batch_size=n + 1, details={"worst": math.inf, HOSTILE: HOSTILE}) for n in range(CHUNK + 1)]
    first, second = (json.loads(gzip.decompress(base64.b64decode(each))) for each in chunks(rows))
    assert (len(first), len(second)) == (CHUNK, 1)
    assert [each["batch_size"] for each in [*first, *second]] == [row.batch_size for row in rows]
    assert first[0]["details"] == {"worst": None, HOSTILE: HOSTILE}
    assert "batch_size=251" in second[0]["command"]


def test_a_damaged_row_and_one_of_another_version_cost_no_other_row(store):
    found = read(store)
    assert len(found.rows) == len(rows_of_all_kinds()) + 1
    (line,) = found.damaged
    assert "schema_version=99: was written by a newer shardbench" in line
    assert [night.day for night in found.nights] == ["2026-01-02", "2026-01-03", "2026-01-04"]
    assert set(found.stores) == {night.day for night in found.nights}


def test_a_row_in_two_stores_is_one_row(tmp_path):
    Store(tmp_path / "a").append([a_row()])
    Store(tmp_path / "b").append([a_row(), a_row(point_id="other")])
    assert sorted(read(tmp_path).stores) == ["a", "b"]


def test_nothing_in_the_rows_ends_an_element_of_the_page():
    data = {"rows": {"model": [HOSTILE, "</script><!--\u2028"]}}
    text = "".join(one_file(HOSTILE, data))
    assert text.count("</script>") == text.count("<script")  # those of bundle.py itself
    assert HOSTILE not in text
    files = dict(folder(HOSTILE, data))
    assert json.loads(files["data/rows.js"].partition(",")[2].removesuffix(");\n")) == data["rows"]


@pytest.mark.parametrize("command", [["dashboard"], ["report"]])
def test_a_store_without_rows_is_one_sentence_and_leaves_nothing(tmp_path, capsys, command):
    (tmp_path / "none").mkdir()
    assert main([*command, f"results_dir={tmp_path / 'none'}", f"out={tmp_path / 'out'}"]) == 2
    assert "holds no rows; run shardbench run first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_command_that_is_told_to_end_leaves_the_former_site(tmp_path, monkeypatch):
    """And nothing beside it; the same where the new one is in place already."""
    Store(tmp_path / "store").append([a_row()])
    out = tmp_path / "sites" / "site"
    for title in ("former", "new"):
        write(tmp_path / "store", out, title, Rules())
        assert [path.name for path in out.parent.iterdir()] == ["site"]
        assert title in (out / "index.html").read_text()

    def told(*_):
        yield "index.html", "half"
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.dashboard.write.folder", told)
    monkeypatch.setattr("bench.dashboard.write.one_file", lambda *_: (text for _, text in told()))
    for path in (out, out.parent / "page.html"):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "store", path, "half", Rules())
        assert [path.name for path in out.parent.iterdir()] == ["site"]
        assert "new" in (out / "index.html").read_text()


def test_the_site_takes_the_place_of_a_site_and_of_nothing_else(tmp_path, capsys):
    out = tmp_path / "site"
    Store(tmp_path / "store").append([a_row()])
    assert main(["dashboard", f"results_dir={tmp_path / 'store'}", f"out={out}/", "title=night watch"]) == 0
    assert "1 row in" in capsys.readouterr().out
    assert "night watch" in (out / "index.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"site", "store"}
    assert all((out / name).is_file() for name in scripts())
    for taken in ("store", "store/rows", "/proc/none/site", "/proc/none/page.html", "."):
        assert main(["dashboard", f"results_dir={tmp_path / 'store'}", f"out={tmp_path / taken}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "out=" in line
    assert len(Store(tmp_path / "store").load()) == 1


def test_without_plotly_one_sentence_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setattr("bench.dashboard.bundle.find_spec", lambda name: None)
    for out in ("site", "page.html"):
        assert main(["dashboard", f"results_dir={tmp_path}", f"out={tmp_path / out}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "shardbench[dashboard]" in line
    assert list(tmp_path.iterdir()) == []


def test_two_runs_give_the_same_bytes(store, tmp_path):
    for name in ("a.html", "b.html"):
        write(store, tmp_path / name, "t", Rules())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
