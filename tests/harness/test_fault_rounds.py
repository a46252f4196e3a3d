"""Fifty rounds of two sweeps on one store, and what goes wrong in each: no row is lost, doubled or half-written."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KINDS = {
    "nothing": 2,
    "command": 8,
    "worker": 8,
    "everything": 5,
    "preempted": 6,
    "interrupted": 4,
    "asleep": 7,
    "damaged": 4,
    "full": 3,
    "read-only": 1,
    "clock": 2,
}
POINTS = list(range(1, 7))
SIGNALS = {"command": -9, "everything": -9, "preempted": 143, "interrupted": 130}
"""Kind of a round → the exit code of a sweep that it has ended."""
pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found on Linux")


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    kinds = [kind for kind, number in KINDS.items() for _ in range(number)]
    words = [sys.executable, str(HERE / "fault_rounds.py"), str(folder), "2026", *kinds]
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(words, env=path, cwd=folder, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert Counter(each["kind"] for each in found) == KINDS
    return found


@pytest.mark.slow(seconds=25)
def test_every_point_is_answered_once_whatever_happens(rounds):
    for each in rounds:
        assert each["last"] == 0, each
        assert each["answered"] == POINTS, each
        assert each["half"] == 0, each


@pytest.mark.slow
def test_nothing_is_left(rounds):
    for each in rounds:
        assert (each["orphans"], each["left"]) == ([], []), each


@pytest.mark.slow
def test_only_a_killed_worker_fails_its_point(rounds):
    for each in rounds:
        assert len(each["failed"]) <= (6 if each["kind"] in ("worker", "everything", "preempted") else 0), each


@pytest.mark.slow
def test_the_rounds_did_what_they_are_for(rounds):
    """A suite in which nothing ever goes wrong would pass too."""
    of_kind = {kind: [each for each in rounds if each["kind"] == kind] for kind in KINDS}
    for kind, code in SIGNALS.items():
        assert any(code in each["codes"] for each in of_kind[kind]), of_kind[kind]
    assert sum(each["taken_over"] for each in rounds) > 0
    assert any(each["failed"] for each in of_kind["worker"])
    assert any(each["printed"] for each in [*of_kind["full"], *of_kind["read-only"]])
    assert all(each["codes"] == [0, 0] and each["started"] == len(POINTS) for each in of_kind["nothing"])
