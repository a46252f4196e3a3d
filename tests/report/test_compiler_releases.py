"""``shardbench report compiler``: what each release did to the same programs, by numbers that a reader can check."""

import csv
import json

import pytest
from builders.rows import a_row

from bench.cli.main import main
from bench.compare.nights.read import read_nights
from bench.report.compiler.figure import over_releases, relative
from bench.report.compiler.findings import release_findings, size
from bench.report.compiler.releases import QUANTITIES, changes, program_labels, releases_of
from bench.report.compiler.report import compiler_report
from bench.report.render import style
from bench.rows.store import Store
from engines.core.errors import ShardbenchError

TIME, TRAFFIC, COMMUNICATION, TEMPORARY = QUANTITIES


def compiled(libtpu, step_s=None, *, traffic=8e9, jax="0.10.2", sha="a" * 40, **changes):
    """A decode step of two: the answer under a release, or a refusal."""
    content = {
        **{"source": "compiled", "engine": "compiled", "phase": "decode", "batch_size": 64, "output_len": 2},
        **{"versions": {"jax": jax, "jaxlib": jax, "libtpu": libtpu}, "git_sha": sha, "git_dirty": False},
        **{"status": "ok" if step_s else "failed", "error": None if step_s else "not readable", "valid": bool(step_s)},
    }
    if step_s:
        content |= {"latency_s": 2 * step_s, "step_time_s": step_s, "communication_s": 0.25 * 0.03}
        content |= {"activations_bytes": 2e6, "details": {"hbm_bytes_moved": traffic}}
    return a_row(**{**content, **changes})


def stored(folder, *nights):
    for number, rows in enumerate(nights):
        Store(folder / "nightly" / f"2026-03-{number + 1:02}").append(rows)
    return read_nights(folder / "nightly")


def test_what_a_release_changed_is_over_the_last_that_answered(tmp_path):
    nights = stored(
        tmp_path,
        [compiled("1", 0.020), compiled("1", 0.010, batch_size=8)],
        [compiled("2"), compiled("2", 0.010, batch_size=8)],
        [compiled("3", 0.019, traffic=6e9), compiled("3", 0.010, batch_size=8)],
    )
    releases = releases_of(nights)
    assert [each.label for each in releases] == ["libtpu 1", "libtpu 2", "libtpu 3"]
    (change,) = changes(releases, TIME)
    assert (change.before.label, change.release.label) == ("libtpu 1", "libtpu 3")
    assert change.ratio == pytest.approx(0.95)
    assert [each.ratio for each in changes(releases, TRAFFIC)] == [pytest.approx(0.75)]
    assert list(changes(releases, COMMUNICATION)) == []
    said = {each.topic: each for each in release_findings(releases)}
    assert "-5.00%" in said["all releases"].sentence
    assert "libtpu 3 changed HBM traffic the most: -25.00%" in said["HBM traffic by release"].sentence
    assert said["communication by release"].sentence == "No release changed the communication of any program."
    assert "no answer under 1 release of 3" in said["refused programs"].sentence
    first, second = ([each.rows.get(key) for each in releases] for key in program_labels(releases))
    assert relative(first, TIME) == [1.0, None, pytest.approx(0.95)]
    assert relative(second, TEMPORARY) == [1.0, 1.0, 1.0]


def test_nights_with_the_same_compiler_and_commit_are_one_release(tmp_path):
    nights = stored(
        tmp_path,
        [compiled("1", 0.020)],
        [compiled("1", 0.020)],
        [compiled("1", 0.021, sha="b" * 40)],
        [a_row(source="predicted")],
    )
    releases = releases_of(nights)
    assert [each.day for each in releases] == ["2026-03-01", "2026-03-03"]
    (change,) = changes(releases, TIME)
    assert change.of_code
    assert (
        "the commit is another" in {each.topic: each.sentence for each in release_findings(releases)}["time by release"]
    )


def test_labels_tell_what_differs(tmp_path):
    nights = stored(
        tmp_path,
        [compiled("1", 0.02), compiled("1", 0.02, weight_dtype="int8"), compiled("1", 0.02, batch_size=1)],
        [compiled("1", 0.02, jax="0.11.0")],
    )
    releases = releases_of(nights)
    assert [each.label for each in releases] == ["jax 0.10.2", "jax 0.11.0"]
    names = list(program_labels(releases).values())
    assert len(set(names)) == 3
    assert any("int8" in each for each in names)
    assert "int8" not in names[2]


def test_changes_in_words():
    assert [size(each) for each in (1.0123, 0.5, 3.4, 1 + 1e-6)] == [
        "+1.23%",
        "-50.00%",
        "3.4 times",
        "less than 0.01%",
    ]


def test_the_figure_has_a_line_a_program_and_a_cross_where_there_is_no_answer(tmp_path):
    nights = stored(
        tmp_path,
        [compiled("1", 0.02), compiled("1", 0.01, batch_size=8)],
        [compiled("2", 0.001), compiled("2", batch_size=8)],
    )
    with style.settings():
        drawn = over_releases(releases_of(nights))
    time = drawn.figure.axes[0]
    assert time.get_yscale() == "log"
    lines = [line.get_ydata().tolist() for line in time.get_lines() if line.get_marker() == "^"]
    assert lines == [[1.0, pytest.approx(0.05)], [1.0]]
    (cross,) = [line for line in time.get_lines() if line.get_marker() == "x"]
    assert cross.get_xdata().tolist() == [1]


def test_the_command_writes_every_figure_and_says_what_is_missing(tmp_path, capsys):
    words = ["report", "compiler", f"results_dir={tmp_path}", f"out={tmp_path / 'out'}", "figures=none"]
    assert main(words) == 2
    assert "holds no nights" in capsys.readouterr().err
    stored(tmp_path, [compiled("1", 0.02)])
    assert main(words) == 0
    assert "a second one makes a history" in capsys.readouterr().out
    hostile = "0|<script>"
    Store(tmp_path / "nightly" / "2026-04-01").append([compiled(hostile, 0.03)])
    (tmp_path / "nightly" / "2026-04-01" / "rows" / "20260401T000000000000-1-aaaaaaaa-n1.jsonl").write_text("no row\n")
    assert main([*words, "print=json"]) == 0
    numbers = {each["topic"]: each["numbers"] for each in json.loads(capsys.readouterr().out)["findings"]}
    assert list(numbers["all releases"].values()) == [pytest.approx(1.5)]
    text = (tmp_path / "out" / "compiler" / "compiler.md").read_text()
    assert "<script>" not in text
    assert "Damaged, left out" in text
    with (tmp_path / "out" / "compiler" / "tables" / "compiler_values.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(each["time_s"]) for each in lines] == [0.02, 0.03]


def test_nights_without_a_compiled_row(tmp_path):
    with pytest.raises(ShardbenchError, match="no night has a compiled row"):
        compiler_report(stored(tmp_path, [a_row(source="predicted")]), "title")
