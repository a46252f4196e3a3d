"""Several sweeps at once on one store, and one of them killed, asleep or preempted: every point is answered once."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import shared_sweeps
from processes import wait_for

from bench.rows.store import line_of
from bench.run import jobs
from bench.run.sharing import Sharing

HERE = Path(__file__).parent
POINTS = list(range(1, shared_sweeps.POINTS + 1))
KINDS = ("nothing", "command", "worker", "preempted")
pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found on Linux")


@pytest.mark.slow(seconds=14)
def test_no_row_is_lost_or_doubled_and_nothing_is_left(shardbench, tmp_path):
    """One round each of some kinds here; ``python shared_sweeps.py FOLDER SEED KIND...`` plays as many as one likes."""
    words = [sys.executable, str(HERE / "shared_sweeps.py"), str(tmp_path), "7", *KINDS]
    done = subprocess.run(words, env=shardbench.env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["kind"] for each in rounds] == list(KINDS)
    for each in rounds:
        assert each["answered"] == POINTS, each
        assert (each["orphans"], each["left"]) == ([], []), each
        # A point whose worker was killed has a row that says so, which the next command asks again.
        assert each["failed"] <= (2 if each["kind"] == "worker" else 0), each
        assert each["last"] == 0, each
    undisturbed = rounds[0]
    assert undisturbed["codes"] == [0, 0]
    assert undisturbed["started"] == len(POINTS)
    codes = {each["kind"]: set(each["codes"]) for each in rounds}
    assert codes["preempted"] <= {0, 143}
    assert codes["command"] <= {0, -9}


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
