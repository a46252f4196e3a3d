"""Tables as people have them: however a table is written its rows are the same, and what is no row is named."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders.published_files import published_files
from hypothesis import given
from hypothesis import strategies as st

from bench.cli.main import main as shardbench
from bench.rows.store import Store
from bench.run.make_row import PointTask, estimated
from bench.validate.contradictions import contradictions
from bench.validate.csv_cases import read_cases
from bench.validate.data import read_all, read_data, sources_of
from bench.validate.throughput import RATES
from engines.core.engine import Estimate
from engines.core.errors import InvalidRequest
from engines.published.table import columns

COLUMNS = columns()
ROW = {
    **dict.fromkeys(COLUMNS, ""),
    "source": "a blog",
    "system": "trtllm",
    "model": "llama-3-70b",
    "hw": "h100-80gb",
    "num_chips": "4",
    "tensor_parallel": "4",
    "pipeline_parallel": "1",
    "phase": "generate",
    "batch_size": "64",
    "input_len": "1024",
    "output_len": "1024",
    "weight_dtype": "float8_e4m3",
    "latency_s": "21.5",
    "status": "ok",
}


def without_time(**cells):
    return {name: cell for name, cell in ROW.items() if name != "latency_s"} | cells


def table(path, *rows, header=None, delimiter=",", end="\n", mark="", blank=(), decimal=".", first=""):
    """Write rows as a spreadsheet does; returns the path. ``blank`` are the lines before which an empty one stands."""
    header = header or list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    for number, row in enumerate(rows):
        if number in blank:
            text.write(delimiter * (len(header) - 1) * (number % 2) + "\n")
        cells = {**row, "latency_s": row.get("latency_s", "").replace(".", decimal)}
        writer.writerow([cells.get(name, "") for name in header])
    content = mark + (first + text.getvalue()).replace("\n", end)
    path.write_bytes(content.encode())
    return path


def content_of(reading):
    return [replace(case, file="", line=0) for case in reading.cases]


@given(
    order=st.permutations([*COLUMNS, "doubt", "act_dtype"]),
    delimiter=st.sampled_from([",", ";", "\t"]),
    told=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from(["", "\ufeff"]),
    blank=st.sets(st.integers(0, 3)),
    comma=st.booleans(),
    doubt=st.sampled_from(["", "drawn from a chart; 5% at most, or more", 'a "quoted" word', "two\nlines"]),
)
def test_a_table_says_the_same_however_it_is_written(
    tmp_path_factory, order, delimiter, told, end, mark, blank, comma, doubt
):
    folder = tmp_path_factory.mktemp("tables")
    rows = [
        {**ROW, "batch_size": str(2**each), "latency_s": "21.5", "doubt": doubt, "act_dtype": ""} for each in range(4)
    ]
    plain = read_cases(table(folder / "plain.csv", *rows), "analytic")
    assert not plain.unused
    assert [case.point.batch_size for case in plain.cases] == [1, 2, 4, 8]
    other = read_cases(
        table(
            folder / "other.csv",
            *rows,
            header=order,
            delimiter=delimiter,
            end=end,
            mark=mark,
            blank=blank,
            decimal="," if comma and delimiter == ";" else ".",
            first=f"sep={delimiter}\n" if told else "",
        ),
        "analytic",
    )
    assert not other.unused
    assert content_of(other) == content_of(plain)
    assert all(dict(case.extra) == ({"doubt": doubt} if doubt else {}) for case in plain.cases)


@pytest.mark.parametrize("first", ["", "sep=;\n", "\n\n"])
def test_a_line_is_named_by_its_number_in_the_file(tmp_path, first):
    rows = [{**ROW, "doubt": "two\nlines"}, {**ROW, "model": "llama-9"}]
    path = table(tmp_path / "mine.csv", *rows, delimiter=";", first=first)
    [unused] = read_cases(path, "analytic").unused
    lines = path.read_text().split("\n")
    assert "llama-9" in lines[unused.line - 1]
    assert unused.place == f"mine.csv:{unused.line}"


# 64 sequences of 1024 output tokens at 5000 tokens/s are 13.1072 s; counted with the prompts, twice that.
TIMES = {"output": 64 * 1024 / 5000, "all": 64 * 2048 / 5000}


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("counted", ["output", "all"])
@pytest.mark.parametrize("how", ["key", "column", "name"])
def test_a_throughput_gives_the_time_of_the_tokens_that_it_counts(tmp_path, counted, how):
    name = {"output": "output_tokens_per_s", "all": "total_tokens_per_s"}[counted] if how == "name" else "tokens_per_s"
    row = without_time(**{name: "5000"}, **({"tokens": counted} if how == "column" else {}))
    reading = read_cases(table(tmp_path / "mine.csv", row), "analytic", counted if how == "key" else None)
    [case] = reading.cases
    assert case.latency_s == pytest.approx(TIMES[counted])
    length = {"output": "output_len", "all": "(input_len + output_len)"}[counted]
    assert case.derived == f"latency_s = batch_size · {length} / {name}"


@pytest.mark.parametrize(("phase", "output_len", "seconds"), [("prefill", "", 64.0), ("decode", "256", 16.0)])
@pytest.mark.parametrize("counted", [None, "output", "all"])
def test_a_phase_with_one_kind_of_tokens_needs_no_word_for_it(tmp_path, phase, output_len, seconds, counted):
    row = without_time(phase=phase, output_len=output_len, batch_size="16", tokens_per_s="256")
    [case] = read_cases(table(tmp_path / "mine.csv", row), "analytic", counted).cases
    assert case.latency_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"tokens_per_s": "5000"}, "counts output tokens or all tokens"),
        ({"tokens_per_s": "5000", "tokens": "some"}, "tokens=some: is not known; use output or all"),
        ({"tokens_per_s": "0"}, "must be a number > 0"),
        ({"tokens_per_s": "fast"}, "must be a number > 0"),
        ({"tokens_per_s": "5000", "total_tokens_per_s": "5000"}, "stands beside tokens_per_s"),
        ({"output_tokens_per_s": "5000", "tokens": "all"}, "contradicts the column output_tokens_per_s"),
        ({"tokens_per_s": "5000", "phase": "prefill", "tokens": "output"}, "are none in a prefill"),
        ({"tokens_per_s": "5000", "status": "oom"}, "must be empty if status=oom"),
        ({"tokens_per_s": ""}, "latency_s=: is empty although status=ok"),
        ({"tokens_per_s": "0.1", "tokens": "output"}, "is over 1e+05 s"),
        ({"tokens_per_s": "9e6", "tokens": "output"}, "not plausible: "),
    ],
)
def test_a_throughput_that_says_too_little_or_too_much_is_named(tmp_path, cells, words):
    reading = read_cases(table(tmp_path / "mine.csv", without_time(**cells)), "analytic")
    assert not reading.cases
    assert words in reading.unused[0].reason


@pytest.mark.parametrize(
    ("latency_s", "cells", "agrees"),
    [
        ("13.1", {"tokens_per_s": "5000"}, True),
        ("26.2", {"tokens_per_s": "5000"}, True),
        ("26.2", {"output_tokens_per_s": "5000"}, False),
        ("20", {"tokens_per_s": "5000"}, False),
    ],
)
def test_a_time_beside_a_throughput_counts_if_they_are_of_one_result(tmp_path, latency_s, cells, agrees):
    reading = read_cases(table(tmp_path / "mine.csv", {**ROW, "latency_s": latency_s, **cells}), "analytic")
    assert [case.latency_s for case in reading.cases] == ([float(latency_s)] if agrees else [])
    assert agrees or "contradicts" in reading.unused[0].reason


def test_globs_lists_folders_and_names_are_the_same_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    files = [table(Path("mine") / name, ROW) for name in ("a.csv", "b.CSV", "c d.csv")]
    Path("mine/notes.txt").write_text("not a table")
    assert sources_of(["mine"]) == sources_of(["mine/*.[cC]*"]) == sources_of([*map(str, files)]) == files
    assert sources_of(["paper-table2", "mine/a.csv"]) == [published_files()[0], files[0]]
    for missing, words in (("mine/*.tsv", "matches no file"), ("yours", "is no file and no folder")):
        with pytest.raises(InvalidRequest, match=words):
            sources_of([missing])
    Path("nothing").mkdir()
    with pytest.raises(InvalidRequest, match="holds no rows and no CSV files"):
        sources_of(["nothing"])


def imported(batch_size, *, seconds=20.0, **changes):
    case = read_all(published_files()[:1], "imported").cases[0]
    point = replace(case.point, engine="imported", batch_size=batch_size)
    task = PointTask(point=point, point_id=f"{batch_size} {changes}", source="published", sweep=None)
    return replace(estimated(task, Estimate(latency_s=seconds, system="mine 1.0", reference="file.json")), **changes)


def test_published_rows_of_a_folder_are_cases_and_its_tables_too(tmp_path):
    rows = [imported(1), imported(2), imported(4, source="predicted"), imported(8, model="palm-9")]
    impossible = imported(16, seconds=1e-3)
    Store(tmp_path).append([*rows, impossible])
    table(tmp_path / "more.csv", ROW)
    reading = read_data([str(tmp_path)], "analytic")
    assert [(case.system, case.point.batch_size) for case in reading.cases] == [
        ("mine 1.0", 1),
        ("mine 1.0", 2),
        ("trtllm", 64),
    ]
    reasons = " / ".join(unused.reason for unused in reading.unused)
    for words in ("model=palm-9: is not known", "not valid: mfu=", "1 of 5 rows are predicted or compiled"):
        assert words in reasons
    assert len(reading.unused) == 3


def test_rows_that_shardbench_exported_are_a_table(tmp_path, capsys):
    store = tmp_path / "store"
    Store(store).append([imported(1), imported(2, valid=False, invalid_reason="it was noisy")])
    out = tmp_path / "exported.csv"
    assert shardbench(["results", "export", f"results_dir={store}", "format=csv", f"out={out}"]) == 0
    capsys.readouterr()
    assert shardbench(["validate", f"data={out}", "print=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["batch_size"] for row in found["errors"]] == [1]
    assert [each["reason"] for each in found["unused"]] == ["valid=False: it was noisy"]


def test_rows_of_one_point_that_are_apart_are_shown_and_none_is_averaged(tmp_path, capsys):
    times = {"a.csv": "20", "b.csv": "20.9", "c.csv": "21.1"}
    for name, seconds in times.items():
        table(tmp_path / name, {**ROW, "latency_s": seconds}, {**ROW, "system": name, "latency_s": seconds})
    reading = read_data([str(tmp_path)], "analytic")
    [found] = contradictions(reading.cases)
    assert [case.place for case in found.cases] == ["a.csv:2", "b.csv:2", "c.csv:2"]
    assert found.spread == pytest.approx(1.1 / 20)
    assert shardbench(["validate", f"data={tmp_path}", "print=json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["latency_s"] for row in told["errors"]] == [float(each) for each in times.values() for _ in range(2)]
    assert [row["latency_s"] for row in told["contradictions"][0]["rows"]] == [20, 20.9, 21.1]
    assert shardbench(["validate", f"data={tmp_path}"]) == 0
    assert "trtllm: rows of one point are 6% apart: a.csv:2 20 s, b.csv:2 20.9 s" in capsys.readouterr().out
    # Up to 5% is one time that was measured twice.
    assert not contradictions([case for case in reading.cases if case.file != "c.csv"])


def test_what_is_not_used_is_counted_and_named_and_the_rest_is_compared(tmp_path, capsys):
    rows = [{**ROW, "model": f"unknown-{each}"} for each in range(25)]
    path = table(tmp_path / "mine.csv", ROW, *rows, {**ROW, "model": "unknown-0"})
    broken = tmp_path / "broken.csv"
    broken.write_bytes(b"\xff\xfe\xff")
    words = ["validate", f"data=[{path},{broken}]"]
    assert shardbench(words) == 0
    out = capsys.readouterr().out
    assert "not used: 27 rows" in out
    assert "mine.csv:3,28: model=unknown-0: is not known" in out
    assert "unknown-18" in out
    assert "unknown-21" not in out
    assert "and 6 more reasons" in out
    assert shardbench([*words, "print=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], len(found["unused"])) == (1, 27)
    assert [each["line"] for each in found["unused"]] == [*range(3, 29), None]


def test_exit_code_two_only_where_nothing_can_be_used(tmp_path, capsys):
    path = table(tmp_path / "mine.csv", {**ROW, "model": "unknown"}, {**ROW, "hw": "unknown"})
    assert shardbench(["validate", f"data={path}"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "holds no usable row: mine.csv:2: model=unknown: is not known" in said.err
    assert "(and 1 more)" in said.err


def test_names_with_the_marks_of_a_terminal_are_printed_as_they_are(tmp_path, capsys):
    path = table(tmp_path / "mine.csv", {**ROW, "system": "[/b] [bold]mine"})
    assert shardbench(["validate", f"data={path}"]) == 0
    assert "[/b] [bold]mine" in capsys.readouterr().out


def test_the_time_is_one_of_the_columns_of_the_message(tmp_path):
    path = table(tmp_path / "mine.csv", without_time())
    [unused] = read_cases(path, "analytic").unused
    assert all(name in unused.reason for name in ("latency_s", *RATES))
