"""Nights as cron has them: a first, a second, the same again, a bad one."""

import json
import os
import statistics
from dataclasses import replace

import pytest
from builders import hlo_texts
from builders.rows import a_row

from bench.cli.main import main
from bench.compare.nightly import night_before
from bench.rows.store import Store

SWEEP = ["sweep=paper-table2", "run=[engine=analytic,wandb.mode=disabled]"]


def program(tmp_path, text):
    """The key that asks for a program of somebody else's too."""
    (tmp_path / "step.txt").write_text(text)
    return f"estimate=['hlo={tmp_path / 'step.txt'} topology=v5e:2x2 mesh=[model:4]']"


def nightly(tmp_path, day, *words):
    return main(
        ["nightly", *SWEEP, f"results_dir={tmp_path / 'results'}", f"out={tmp_path / 'out'}", f"date={day}", *words]
    )


def slow_down(store, factor):
    """Answer every question of the night once more, ``factor`` times as slow."""
    rows = store.load()
    store.append(
        [replace(row, latency_s=row.latency_s * factor, created_at="2099-01-01T00:00:00.000+00:00") for row in rows]
    )


@pytest.mark.slow
def test_nights(tmp_path, capsys):
    assert nightly(tmp_path, "2026-01-01", "print=json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["previous"] is None
    for path in first["files"]:
        assert os.path.getsize(path) > 0

    assert nightly(tmp_path, "2026-01-02") == 0
    out = capsys.readouterr().out
    assert "6 points in both stores: 6 same" in out
    assert str(tmp_path / "out" / "2026-01-02" / "comparison.json") in out

    # The same day again: nothing runs twice, the answer is the same.
    second = Store(tmp_path / "results" / "nightly" / "2026-01-02")
    rows = second.load()
    assert nightly(tmp_path, "2026-01-02", "print=json") == 0
    assert second.load() == rows
    assert json.loads(capsys.readouterr().out)["previous"].endswith("2026-01-01")

    slow_down(second, 1.5)
    assert nightly(tmp_path, "2026-01-02") == 1
    assert "slower" in capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "2026-01-02" / "comparison.json").read_text())
    assert told["regressions"] == 6
    assert nightly(tmp_path, "2026-01-02", "threshold=0.6") == 0


@pytest.mark.slow
def test_nights_time_programs_of_others_too(tmp_path, capsys):
    assert nightly(tmp_path, "2026-01-01", program(tmp_path, hlo_texts.gathers("x"))) == 0
    assert nightly(tmp_path, "2026-01-02", program(tmp_path, hlo_texts.gathers("x", "moved"))) == 1
    out = capsys.readouterr().out
    assert "slower" in out
    assert "jit_step on 4 tpu-v5e, program" in " ".join(out.split())
    report = (tmp_path / "out" / "2026-01-02" / "report.md").read_text()
    assert "Programs of others" in report


@pytest.mark.parametrize(
    ("shifts", "code", "repeats"),
    [((1.0,), 0, 0), ((2.0, 1.0), 0, 1), ((2.0, 1.9, 1.0), 0, 2), ((2.0, 1.9, 2.1), 1, 2)],
)
def test_what_looks_slower_is_measured_again_before_it_is_told(tmp_path, monkeypatch, capsys, shifts, code, repeats):
    def measured(day, shift):
        samples = [0.02 * shift * (1 + 0.001 * number) for number in range(30)]
        made = f"2026-01-0{day}T0{len(asked)}:00:00.000+00:00"
        return a_row(samples_s=samples, latency_s=statistics.median(samples), valid=True, host="h", created_at=made)

    def stands_in(command, *words, **_):
        if command == "run":
            asked.append("resume=false" in words)
            Store(tonight).append([measured(2, shifts[len(asked) - 1])])
        return 0

    asked = []
    tonight = tmp_path / "results" / "nightly" / "2026-01-02"
    Store(tonight.with_name("2026-01-01")).append([measured(1, 1.0)])
    monkeypatch.setattr("bench.compare.nightly._shardbench", stands_in)
    assert nightly(tmp_path, "2026-01-02", "print=json") == code
    assert json.loads(capsys.readouterr().out)["repeats"] == repeats
    assert asked == [False] + [True] * repeats
    assert len(Store(tonight).load()) == 1 + repeats


def test_a_night_of_three_processes_runs_each_point_three_times_and_compares_their_medians(
    tmp_path, monkeypatch, capsys
):
    def stands_in(command, *words, **_):
        if command == "run":
            asked.append("resume=false" in words)
            shift = shifts[len(asked) - 1]
            samples = [0.02 * shift * (1 + 0.001 * number) for number in range(30)]
            made = f"{day}T0{len(asked)}:00:00.000+00:00"
            latency_s = statistics.median(samples)
            row = a_row(samples_s=samples, latency_s=latency_s, valid=True, host="h", created_at=made)
            Store(tmp_path / "results" / "nightly" / day).append([row])
        return 0

    monkeypatch.setattr("bench.compare.nightly._shardbench", stands_in)
    asked, day, shifts = [], "2026-01-01", (1.0, 1.1, 0.9)
    assert nightly(tmp_path, day, "processes=3") == 0
    assert asked == [False, True, True]
    # 15% slower in the middle, but within what processes scatter; the night of as many again does nothing more.
    asked, day, shifts = [], "2026-01-02", (1.2, 1.05, 1.15)
    capsys.readouterr()
    assert nightly(tmp_path, day, "processes=3", "print=json") == 0
    (point,) = json.loads(capsys.readouterr().out)["comparison"]["points"]
    assert point["old_processes_s"] == pytest.approx([0.02 * 0.9, 0.02, 0.02 * 1.1], rel=0.02)
    asked, shifts = [], ()
    monkeypatch.setattr("bench.compare.nightly._run", lambda plan, *words: asked.append(words) or 0)
    assert nightly(tmp_path, day, "processes=3") == 0
    assert asked == [()]


def test_the_night_before_is_the_newest_with_rows(tmp_path):
    for day in ("2026-01-01", "2026-01-03", "2026-02-01"):
        Store(tmp_path / day).append([a_row()])
    (tmp_path / "2026-01-04").mkdir()
    (tmp_path / "notes").mkdir()
    assert night_before(tmp_path / "2026-01-05") == tmp_path / "2026-01-03"
    assert night_before(tmp_path / "2026-01-01") is None


def test_a_sweep_that_cannot_run_says_why_in_one_line(tmp_path, capsys):
    assert nightly(tmp_path, "2026-01-01", "sweep=no-such") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "sweep=no-such" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "word",
    ["date=yesterday", "date=2026-13-01", "date=20260101", "run=[quickly]", "alpha=2", "confirm=-1", "processes=0"],
)
def test_a_wrong_value_is_one_line_and_runs_nothing(tmp_path, capsys, word):
    assert nightly(tmp_path, "2026-01-01", word) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word.partition("=")[0] + "=" in line
    assert list(tmp_path.iterdir()) == []
