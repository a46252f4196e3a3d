"""What goes wrong with one point costs that point, and no other."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
from processes import gone, wait_for, wait_until_gone

from bench.run import child

pytestmark = pytest.mark.slow


def test_every_way_to_end_is_a_row_with_one_sentence(shardbench):
    done = shardbench(*shardbench.scripted("batch_size=[1,101,102,104,105,106,107,108,2]", "print=json"), code=3)
    rows = {row["batch_size"]: row for row in shardbench.rows(done)}
    assert {size: row["status"] for size, row in rows.items()} == {
        1: "ok",
        101: "failed",
        102: "failed",
        104: "oom",
        105: "unsupported",
        106: "failed",
        107: "ok",
        108: "failed",
        2: "ok",
    }
    assert "exit code 7" in rows[101]["error"]
    assert "SIGKILL" in rows[102]["error"]
    assert rows[104]["error"] == "needs 3 GB more than a chip has"
    assert rows[106]["error"] == "ZeroDivisionError: a bug of two lines"
    assert rows[108]["error"].endswith("needs no_such_library, which is not installed; install no_such_library")
    assert not any("\n" in (row["error"] or "") for row in rows.values())
    assert "Traceback" not in done.stderr
    assert sorted(row["batch_size"] for row in shardbench.stored()) == sorted(rows)


def test_a_wrong_output_is_stored_and_not_valid(shardbench):
    (row,) = shardbench.rows(shardbench(*shardbench.scripted("batch_size=107", "print=json")))
    assert row["status"] == "ok"
    assert row["latency_s"] > 0
    assert not row["valid"]
    assert "differs from the script by 0.5" in row["invalid_reason"]


def test_a_good_row_says_how_it_was_measured(shardbench):
    words = shardbench.scripted(
        "batch_size=4", "print=json", "timing.max_relative_ci=1e6", "timing.warmup_tolerance=1e6"
    )
    (row,) = shardbench.rows(shardbench(*words))
    assert row["source"] == "measured"
    assert row["valid"], row["invalid_reason"]
    assert row["n"] == len(row["samples_s"]) >= 10
    assert row["ci_low"] <= row["median"] == row["latency_s"] <= row["ci_high"]
    assert row["step_time_s"] == pytest.approx(row["latency_s"] / 4)
    assert row["ffn_layout"] == "ws_1d"
    assert "ffn_layout" in row["chosen"]
    assert row["compile_s"] == 0.25
    assert row["host"]
    assert row["versions"]["python"]


def test_a_hang_ends_with_its_time_and_the_next_point_runs(shardbench, monkeypatch, capsys):
    """By a clock that leaps while the first point hangs: nobody waits, and no slow start is taken for a hang."""
    now = 0.0

    def clock():
        nonlocal now
        started = shardbench.executed()
        if started and not gone(started[0][0]):
            now += 1000
        return now

    monkeypatch.setattr(child, "time", SimpleNamespace(monotonic=clock))
    words = shardbench.scripted("batch_size=[103,1]", "print=json", "engine.timeout_s=600")
    assert shardbench.here(monkeypatch, *words) == 3
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["status"] for row in rows] == ["timeout", "ok"]
    assert "engine.timeout_s=600" in rows[0]["error"]


def test_what_comes_after_a_failed_point_has_a_new_process(shardbench):
    done = shardbench(*shardbench.scripted("batch_size=[1,106,2,3]", "print=json"), code=3)
    assert [row["status"] for row in shardbench.rows(done)] == ["ok", "failed", "ok", "ok"]
    pids = dict.fromkeys(pid for pid, _ in shardbench.executed())
    assert [[size for pid, size in shardbench.executed() if pid == each] for each in pids] == [[1, 106], [2, 3]]


def test_failed_points_are_tried_again_and_others_are_not(shardbench):
    words = shardbench.scripted("batch_size=[1,101,104]", "print=none")
    shardbench(*words, code=3)
    shardbench(*words, code=3)
    assert [size for _, size in shardbench.executed()] == [1, 101, 104, 101]
    shardbench(*words, "resume=false", code=3)
    assert [size for _, size in shardbench.executed()][4:] == [1, 101, 104]


@pytest.mark.slow
def test_kill_9_in_the_middle_loses_nothing_and_runs_nothing_twice(shardbench):
    # The last point waits to be let on, so that the sweep is killed in the middle whenever that is.
    sizes = [*range(1, 21), 114]
    words = shardbench.scripted(f"batch_size={sizes}".replace(" ", ""), "print=none", "+engine.pause_s=0.01")
    barred = shardbench.log.with_name("barred")
    barred.touch()
    sweep = shardbench.start(*words)
    wait_for(lambda: len(shardbench.stored()) >= 5)
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.wait()
    before = [row["batch_size"] for row in shardbench.stored()]
    pids = {pid for pid, _ in shardbench.executed()}
    assert 5 <= len(before) < len(sizes)
    wait_until_gone(*pids)
    started = len(shardbench.executed())

    barred.unlink()
    shardbench(*words)
    stored = shardbench.stored()
    assert sorted(row["batch_size"] for row in stored) == sizes, [row for row in stored if row["status"] != "ok"]
    again = {size for _, size in shardbench.executed()[started:]}
    assert not again & set(before)
