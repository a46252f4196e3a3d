"""Nights as cron has them: a first, a second, the same again, a bad one."""

import json
import os
import statistics
from dataclasses import replace

import pytest
from builders import hlo_texts
from builders.rows import a_row

from bench.cli.main import main
from bench.compare.nights.kept_rules import rules_for
from bench.compare.nights.steps import StepRules
from bench.rows.store import Store
from engines.core.errors import InvalidRequest

SWEEP = ["sweep=paper-table2", "run=[engine=analytic,wandb.mode=disabled]"]


GATHERS = {"first": ["x"], "second": ["x", "moved"]}


def program(folder, text):
    """The key that asks for a program of somebody else's too."""
    folder.mkdir()
    (folder / "step.txt").write_text(text)
    return f"estimate=['hlo={folder / 'step.txt'} topology=v5e:2x2 mesh=[model:4]']"


def nightly(tmp_path, day, *words):
    return main(
        [
            "nightly",
            *SWEEP,
            "most_processes=3",
            f"results_dir={tmp_path / 'results'}",
            f"out={tmp_path / 'out'}",
            f"date={day}",
            *words,
        ]
    )


def slow_down(store, factor):
    """Answer every question of the night once more, ``factor`` times as slow."""
    rows = store.load()
    store.append(
        [replace(row, latency_s=row.latency_s * factor, created_at="2099-01-01T00:00:00.000+00:00") for row in rows]
    )


@pytest.mark.slow
def test_nights(tmp_path, capsys):
    """Two nights of predictions and of somebody else's program, which gathers more in the second."""
    first, second = (program(tmp_path / day, hlo_texts.gathers(*each)) for day, each in GATHERS.items())
    assert nightly(tmp_path, "2026-01-01", first, "print=json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"]["nights"] == 1
    for path in told["files"]:
        assert os.path.getsize(path) > 0

    assert nightly(tmp_path, "2026-01-02", second) == 1
    out = capsys.readouterr().out
    assert "night of 2026-01-02: 1 point worse of 7 compared" in out
    assert "jit_step on 4 tpu-v5e, program" in " ".join(out.split())
    assert str(tmp_path / "out" / "2026-01-02" / "summary.md") in out
    report = (tmp_path / "out" / "2026-01-02" / "report.md").read_text()
    assert "Programs of others" in report

    # The same day again: no point runs twice.
    night = Store(tmp_path / "results" / "nightly" / "2026-01-02")
    slow_down(night, 1.5)
    rows = night.load()
    assert nightly(tmp_path, "2026-01-02", "print=json") == 1
    assert night.load() == rows
    assert json.loads(capsys.readouterr().out)["verdict"]["judged"] == 7
    told = json.loads((tmp_path / "out" / "2026-01-02" / "verdict.json").read_text())
    assert told["regressions"] == 7


def with_nights(tmp_path, monkeypatch, *, tonight, before=6):
    """Nights of one measured point, quiet but for the processes of the last one: seconds of each in turn.

    Returns what was asked of ``shardbench run``: whether each run was to measure anew.
    """

    def measured(day, time, number=0):
        samples = [time * (1 + 0.001 * each) for each in range(30)]
        made = f"2026-01-{day:02}T0{number}:00:00.000+00:00"
        return a_row(samples_s=samples, latency_s=statistics.median(samples), valid=True, host="h", created_at=made)

    def stands_in(command, *words, **_):
        if command == "run":
            asked.append("resume=false" in words)
            Store(night).append([measured(before + 1, tonight[len(asked) - 1], len(asked))])
        return 0

    asked = []
    night = tmp_path / "results" / "nightly" / f"2026-01-{before + 1:02}"
    for day in range(1, before + 1):
        Store(night.with_name(f"2026-01-{day:02}")).append([measured(day, 0.02 * (1 + 0.002 * (day % 3)))])
    monkeypatch.setattr("bench.compare.nightly._shardbench", stands_in)
    return asked


@pytest.mark.parametrize(
    ("seconds", "kind"),
    [((0.02, 0.021, 0.02), None), ((0.024, 0.025, 0.02, 0.02, 0.02), None), ((0.024,) * 5, "suspected")],
)
def test_what_looks_slower_is_measured_again_and_told_once_another_night_agrees(
    tmp_path, monkeypatch, capsys, seconds, kind
):
    asked = with_nights(tmp_path, monkeypatch, tonight=seconds)
    assert nightly(tmp_path, "2026-01-07", "print=json") == 0
    told = json.loads(capsys.readouterr().out)
    # Three processes, and two more while it is suspected.
    assert asked == [False] + [True] * (len(seconds) - 1)
    assert told["repeats"] == len(seconds) - 3
    assert [each["verdict"] for each in told["verdict"]["findings"]] == ([kind] if kind else [])
    if kind:
        asked = with_nights(tmp_path / "next", monkeypatch, tonight=seconds, before=7)
        slow = tmp_path / "next" / "results" / "nightly" / "2026-01-07"
        (part,) = Store(slow).parts()
        part.unlink()
        (row,) = Store(slow.with_name("2026-01-06")).load()
        Store(slow).append([replace(row, latency_s=0.0241)])
        assert nightly(tmp_path / "next", "2026-01-08") == 1
        assert "slower: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ((0.02,) * 3, []),
        ((0.02, 0.0216, 0.02, 0.0215, 0.02), ["most_processes=5"]),
        ((0.02, 0.0216, 0.02), ["find_step=0.5"]),
        ((0.02, 0.0202, 0.02, 0.0202, 0.02, 0.02, 0.02), ["find_step=0.036"]),
    ],
)
def test_more_processes_measure_where_the_first_differ_too_much(tmp_path, monkeypatch, seconds, words):
    asked = with_nights(tmp_path, monkeypatch, tonight=seconds)
    assert nightly(tmp_path, "2026-01-07", "confirm=0", "most_processes=9", *words) == 0
    assert len(asked) == len(seconds)


def test_a_night_that_was_run_is_not_run_again(tmp_path, monkeypatch):
    asked = with_nights(tmp_path, monkeypatch, tonight=(0.02,) * 3)
    assert nightly(tmp_path, "2026-01-07") == 0
    assert asked == [False, True, True]
    again = []
    monkeypatch.setattr("bench.compare.nightly._run", lambda plan, *words: again.append(words) or 0)
    assert nightly(tmp_path, "2026-01-07") == 0
    assert again == [()]


def test_a_sweep_that_cannot_run_says_why_in_one_line(tmp_path, capsys):
    assert nightly(tmp_path, "2026-01-01", "sweep=no-such") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "sweep=no-such" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "word",
    [
        "date=yesterday",
        "date=2026-13-01",
        "date=20260101",
        "run=[quickly]",
        "smallest_step=2",
        "false_alarms=0",
        "confirm=-1",
        "processes=0",
        "most_processes=0",
        "find_step=0",
    ],
)
def test_a_wrong_value_is_one_line_and_runs_nothing(tmp_path, capsys, word):
    assert nightly(tmp_path, "2026-01-01", word) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word.partition("=")[0] + "=" in line
    assert list(tmp_path.iterdir()) == []


def test_a_page_of_the_nights_has_the_rules_that_they_were_judged_by(tmp_path, monkeypatch):
    with_nights(tmp_path, monkeypatch, tonight=(0.02,) * 3)
    assert nightly(tmp_path, "2026-01-07", "smallest_step=0.2", "false_alarms=1e-4", "threshold=0.1") == 0
    folder = tmp_path / "results" / "nightly"
    asked = dict.fromkeys(("false_alarms", "smallest_step", "threshold"))
    assert rules_for(folder, asked) == (StepRules(false_alarms=1e-4, smallest=0.2), 0.1)
    assert rules_for(folder, {**asked, "smallest_step": 0.05})[0] == StepRules(false_alarms=1e-4, smallest=0.05)
    assert rules_for(tmp_path, asked) == (StepRules(), 0.05)
    (folder / "rules.json").write_text("{}")
    with pytest.raises(InvalidRequest, match=r"results_dir.*damaged rules\.json"):
        rules_for(folder, asked)
