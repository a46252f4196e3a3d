"""What a child may take of the machine: memory and cores, with real processes."""

import os

import pytest
from processes import wait_until_gone

from bench.run import limits
from bench.run.child import _messages
from bench.run.limits import Limits
from engines.host import resident
from engines.host.resident import resident_bytes

pytestmark = [
    pytest.mark.skipif(not resident.PROCESSES.is_dir(), reason="memory is watched on Linux"),
    pytest.mark.slow,
]
MEGABYTE = 1 << 20
# A worker takes some 50 MB before it starts a point.
ALLOWED = ["engine.memory_limit_bytes=3e8", "print=json"]


def test_a_point_that_takes_too_much_memory_is_ended_and_the_next_one_runs(shardbench):
    words = shardbench.scripted("batch_size=[1,109,2]", f"+engine.takes_bytes={400 * MEGABYTE}", *ALLOWED)
    rows = shardbench.rows(shardbench(*words, code=3))
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert "engine.memory_limit_bytes=3e+08" in rows[1]["error"]
    assert "raise the limit or use a smaller point" in rows[1]["error"]
    reached = float(rows[1]["error"].partition("used ")[2].partition(" GB")[0])
    assert 0.3 <= reached < 1
    wait_until_gone(shardbench.executed()[1][0])


def test_what_a_point_starts_counts_with_it_and_ends_with_it(shardbench):
    words = shardbench.scripted("batch_size=110", f"+engine.takes_bytes={400 * MEGABYTE}", *ALLOWED)
    (row,) = shardbench.rows(shardbench(*words, code=3))
    assert row["status"] == "failed"
    assert "engine.memory_limit_bytes" in row["error"]
    wait_until_gone(*(pid for pid, _ in shardbench.executed()))


def test_what_former_points_left_behind_costs_no_point(shardbench):
    # Each takes 150 MB and keeps them: two do not fit in one process, and each fits alone.
    words = shardbench.scripted("batch_size=[111,112]", f"+engine.takes_bytes={150 * MEGABYTE}", *ALLOWED)
    rows = shardbench.rows(shardbench(*words))
    assert [row["status"] for row in rows] == ["ok", "ok"]
    (first, one), (again, two), (fresh, three) = shardbench.executed()
    assert (one, two, three) == (111, 112, 112)
    assert first == again != fresh


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("engine.memory_limit_bytes=0", "must be a number > 0"),
        ("engine.memory_limit_bytes=much", "must be a number > 0"),
        ("engine.memory_limit_bytes=true", "must be a number > 0"),
        ("+engine.cores=0", "or null for all"),
        ("+engine.cores=100000", "or null for all"),
        ("+engine.cores=1.5", "or null for all"),
    ],
)
def test_a_limit_that_is_none_is_asked_wrongly(shardbench, monkeypatch, capfd, setting, words):
    assert shardbench.here(monkeypatch, *shardbench.scripted("batch_size=1", setting)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert setting.lstrip("+").split("=")[0] in line
    assert words in line
    assert not shardbench.executed()


def test_a_child_and_what_it_starts_keep_to_their_cores(shardbench):
    shardbench(*shardbench.scripted("batch_size=113", "+engine.cores=1", "print=none"))
    assert [number for _, number in shardbench.executed()] == [113, -1, -1]


@pytest.mark.parametrize(("looks", "told"), [([400, 200], None), ([400, 350, 350, 400], 400), ([300], None)])
def test_what_is_counted_twice_for_a_moment_is_not_held(monkeypatch, looks, told):
    """As of a process between its fork and its exec."""
    seen = iter(looks)
    monkeypatch.setattr(limits, "resident_bytes", lambda group: next(seen))
    assert Limits(memory_bytes=300).over(1) == told
    assert not list(seen)


def test_what_a_child_said_before_it_held_too_much_is_heard_first():
    ours, theirs = os.pipe()
    held = iter([None, 5.0, 5.0])

    def look():
        found = next(held)
        if found:
            os.write(theirs, said.pop() if said else b"")
        return found

    said = [b'{"row": 1}\n{"started": 2}\n']
    with os.fdopen(ours, "rb", buffering=0) as pipe:
        assert list(_messages(pipe, 60, look)) == [{"row": 1}, {"started": 2}, {"resident_bytes": 5.0}]
    os.close(theirs)


def test_no_limit_is_no_limit():
    assert Limits.of({"name": "analytic"}) == Limits()
    assert Limits().over(os.getpgid(0)) is None


def test_resident_memory_of_a_group_by_hand(tmp_path, monkeypatch):
    def process(pid, name, group, pages):
        rest = ["S", "1", str(group), *["0"] * 18, str(pages), "0"]
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(rest)}\n")

    process(10, "worker", 10, 100)
    process(11, "odd) S 1 99 (name", 10, 20)
    process(12, "other", 12, 4000)
    (tmp_path / "13").mkdir()  # ended between two reads
    (tmp_path / "uptime").write_text("1 2")
    monkeypatch.setattr(resident, "PROCESSES", tmp_path)
    page = os.sysconf("SC_PAGE_SIZE")
    assert resident_bytes(10) == 120 * page
    assert resident_bytes(99) == 0
    assert Limits(memory_bytes=120 * page).over(10) is None
    assert Limits(memory_bytes=120 * page - 1).over(10) == 120 * page


def test_this_process_is_seen():
    with open("/proc/self/statm") as file:
        mine = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident_bytes(os.getpgid(0)) > 0.9 * mine
