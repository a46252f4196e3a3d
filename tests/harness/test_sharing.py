"""Several sweeps at once on one store, and one of them killed, asleep or preempted: every point is answered once."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import shared_sweeps
from processes import wait_for

from bench.rows.lease import LEASE_S, Leases
from bench.rows.repair import compact
from bench.rows.store import Store, line_of
from bench.run import jobs
from bench.run.sharing import Sharing

HERE = Path(__file__).parent
POINTS = list(range(1, shared_sweeps.POINTS + 1))
KINDS = ("nothing", "preempted")
pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found on Linux")


@pytest.mark.slow(seconds=7)
def test_no_row_is_lost_or_doubled_and_nothing_is_left(shardbench, tmp_path):
    """With whole command lines; ``test_fault_rounds`` plays many, ``python shared_sweeps.py`` these as one likes."""
    words = [sys.executable, str(HERE / "shared_sweeps.py"), str(tmp_path), "7", *KINDS]
    done = subprocess.run(words, env=shardbench.env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["kind"] for each in rounds] == list(KINDS)
    for each in rounds:
        assert each["answered"] == POINTS, each
        assert (each["orphans"], each["left"]) == ([], []), each
        assert each["failed"] == 0, each
        assert each["last"] == 0, each
    undisturbed = rounds[0]
    assert undisturbed["codes"] == [0, 0]
    assert undisturbed["started"] == len(POINTS)
    codes = {each["kind"]: set(each["codes"]) for each in rounds}
    assert codes["preempted"] <= {0, 143}


def test_what_another_machine_works_on_comes_last_and_its_row_is_used(shardbench, monkeypatch):
    """The lease is another's at first; its row is there when this command comes back to the point."""
    words = shardbench.scripted("batch_size=[1,2,3]", "print=none")
    assert shardbench.here(monkeypatch, *words) == 0
    (part,) = (path for path in shardbench.results.glob("rows/*.jsonl") if '"batch_size": 2,' in path.read_text())
    theirs = part.read_text()
    key = json.loads(theirs)["point_id"]
    for path in shardbench.results.glob("rows/*.jsonl"):
        path.unlink()
    shardbench.log.unlink()
    leases = shardbench.results / "leases"
    leases.mkdir()
    (leases / f"{key}.0").write_text(json.dumps({"owner": "another", "machine": "another", "pid": 1, "started": "1"}))

    def their_row_arrives(seconds):
        part.write_text(theirs)
        (leases / f"{key}.0").unlink()

    monkeypatch.setattr(jobs.time, "sleep", their_row_arrives)
    assert shardbench.here(monkeypatch, *words) == 0
    assert [size for _, size in shardbench.executed()] == [1, 3]
    assert sorted(row["batch_size"] for row in shardbench.stored()) == [1, 2, 3]
    assert not leases.exists()


def test_who_was_asleep_too_long_stores_no_second_row(shardbench, monkeypatch):
    """Its lease was taken over while it measured, and the other's row is stored: that one counts."""
    words = shardbench.scripted("batch_size=[1,2]", "print=none")
    asleep = Sharing.is_still_taken
    stolen = []

    def wakes_up(self, row):
        if row.batch_size == 1 and not stolen:
            stolen.append(self._store.rows_dir / "20260101T000000000000-1-aaaaaaaa-n1.jsonl")
            self._store.rows_dir.mkdir(parents=True, exist_ok=True)
            stolen[0].write_text(f"{line_of(row)}\n")
            self._leases._held[row.point_id].path.unlink()
        return asleep(self, row)

    monkeypatch.setattr(Sharing, "is_still_taken", wakes_up)
    assert shardbench.here(monkeypatch, *words) == 0
    assert sorted(row["batch_size"] for row in shardbench.stored()) == [1, 2]
    assert [size for _, size in shardbench.executed()] == [1, 2]


def test_who_falls_asleep_just_before_it_stores_a_row_doubles_none(shardbench, monkeypatch):
    """Its lease is taken over after it was looked at: both rows are stored, and that of the last claim counts."""
    words = shardbench.scripted("batch_size=[1,2]", "print=none")
    awake, theirs = Sharing.is_still_taken, []

    def falls_asleep(self, row):
        found = awake(self, row)
        if row.batch_size == 1 and not theirs:
            other = Leases(shardbench.results, monotonic=lambda: 0.0)
            assert not other.take(row.point_id)
            other._monotonic = lambda: LEASE_S + 1
            assert other.take(row.point_id)
            theirs.append(replace(row, claim=str(other.claim(row.point_id)), latency_s=77.0))
            if stores_first:
                Store(shardbench.results).append(theirs)
        return found

    monkeypatch.setattr(Sharing, "is_still_taken", falls_asleep)
    for stores_first in (True, False):
        theirs.clear()
        assert shardbench.here(monkeypatch, *words, "resume=true") == 0
        if not stores_first:
            Store(shardbench.results).append(theirs)
        rows = Store(shardbench.results).load()
        assert [(row.batch_size, row.latency_s == 77.0) for row in rows if row.batch_size == 1] == [(1, True)]
        assert len(rows) == 2
        raw = [row["batch_size"] for row in shardbench.stored()]
        assert sorted(raw) == ([1, 2] if stores_first else [1, 1, 2])  # who comes last removes what no longer counts
        compact(Store(shardbench.results))
        assert len(shardbench.stored()) == 2
        shutil.rmtree(shardbench.results)


def test_a_folder_of_leases_that_cannot_be_written_costs_no_row(shardbench, monkeypatch, capsys):
    shardbench.results.mkdir()
    (shardbench.results / "leases").write_text("a file")
    assert shardbench.here(monkeypatch, *shardbench.scripted("batch_size=[1,2]", "print=none")) == 0
    assert len(shardbench.stored()) == 2
    assert capsys.readouterr().err.count("points are not shared with other commands from here on") == 1


def test_sigterm_drops_the_point_and_gives_it_back(shardbench):
    command = shardbench.start(*shardbench.scripted("batch_size=[1,103]", "print=none"))  # 103 never ends
    wait_for(lambda: len(shardbench.executed()) == 2)
    assert len(list((shardbench.results / "leases").iterdir())) == 1
    command.send_signal(signal.SIGTERM)
    assert command.wait(timeout=60) == 143
    assert [row["batch_size"] for row in shardbench.stored()] == [1]
    assert not (shardbench.results / "leases").exists()
