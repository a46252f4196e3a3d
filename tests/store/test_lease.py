"""A lease is one writer's at a time, whatever the clocks say, and a dead writer's is taken over."""

import json
import os
import threading
import time

import pytest
from builders.rows import a_row
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.rows import lease
from bench.rows.lease import FORGET_S, LEASE_S, RENEW_S, Leases
from bench.rows.store import Store
from bench.run.sharing import Sharing


class Clock:
    """The monotonic clock of a process, set by hand."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def files(folder):
    place = folder / "leases"
    return sorted(path.name for path in place.iterdir()) if place.is_dir() else []


def set_age(folder, name, age_s):
    """As if the storage's clock said that a file was touched so long ago."""
    then = time.time() - age_s
    os.utime(folder / "leases" / name, (then, then))


def elsewhere(folder, name="k.0"):
    """Make a lease one of another machine, whose processes cannot be looked at."""
    path = folder / "leases" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": "another"}))


def test_one_of_two_has_it_until_it_is_given_back(tmp_path):
    one, two = Leases(tmp_path), Leases(tmp_path)
    assert one.take("k")
    assert one.take("k")
    assert not two.take("k")
    assert (one.holds("k"), two.holds("k")) == (True, False)
    assert two.take("other")
    one.release("k")
    assert two.take("k")
    one.close()
    two.close()
    assert not (tmp_path / "leases").exists()


def test_of_many_at_once_one_wins(tmp_path):
    start, won = threading.Barrier(16), []

    def work():
        mine = Leases(tmp_path)
        start.wait()
        won.append(sum(mine.take(f"k{number}") for number in range(20)))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) <= 20
    assert len({name.rpartition(".")[0] for name in files(tmp_path)}) == sum(won)


def test_what_a_dead_process_of_this_machine_held_is_free_at_once(tmp_path):
    pid = os.fork()
    if pid == 0:
        Leases(tmp_path).take("k")
        os._exit(0)
    os.waitpid(pid, 0)
    assert files(tmp_path) == ["k.0"]
    mine = Leases(tmp_path)
    assert mine.take("k")
    assert files(tmp_path) == ["k.1"]


def test_another_machine_s_lease_is_over_once_it_was_not_renewed(tmp_path):
    clock = Clock()
    other, mine = Leases(tmp_path), Leases(tmp_path, monotonic=clock)
    assert other.take("k")
    elsewhere(tmp_path)
    assert not mine.take("k")
    clock.now_s = LEASE_S - 1
    assert not mine.take("k")
    clock.now_s = LEASE_S + 1
    assert mine.take("k")
    assert not other.holds("k")
    assert mine.holds("k")
    other.release("k")
    assert mine.holds("k")


def test_one_that_is_old_by_the_storage_s_clock_is_free_sooner(tmp_path):
    clock = Clock()
    other, mine = Leases(tmp_path), Leases(tmp_path, monotonic=clock)
    other.take("k")
    elsewhere(tmp_path)
    set_age(tmp_path, "k.0", 10 * LEASE_S)
    assert not mine.take("k")  # that clock may have jumped: look again
    clock.now_s = 2 * RENEW_S + 1
    assert mine.take("k")


@pytest.mark.parametrize("age_s", [-1e6, 0, 1e6])
def test_a_lease_that_is_renewed_is_never_over_whatever_the_clock(tmp_path, age_s):
    """A clock set back or forth, or hosts whose clocks differ: what counts is that the file changes."""
    clock = Clock()
    other, mine = Leases(tmp_path), Leases(tmp_path, monotonic=clock)
    other.take("k")
    elsewhere(tmp_path)
    for _ in range(20):
        clock.now_s += RENEW_S
        age_s += 0.001
        set_age(tmp_path, "k.0", age_s)
        assert not mine.take("k")
    assert other._is_mine(tmp_path / "leases" / "k.0")


def test_a_holder_renews(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.01)
    mine = Leases(tmp_path)
    mine.take("k")
    set_age(tmp_path, "k.0", 1e6)
    deadline = time.monotonic() + 30
    while time.time() - (tmp_path / "leases" / "k.0").stat().st_mtime > 1e5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    mine.close()


def test_who_was_asleep_does_not_take_a_new_file_of_the_old_name_for_its_own(tmp_path):
    clock = Clock()
    asleep, mine, third = Leases(tmp_path), Leases(tmp_path, monotonic=clock), Leases(tmp_path)
    asleep.take("k")
    elsewhere(tmp_path)
    assert not mine.take("k")
    clock.now_s = LEASE_S + 1
    assert mine.take("k")
    mine.release("k", stored=True)
    assert third.take("k")
    assert files(tmp_path) == ["k.0"]
    assert not asleep.holds("k")
    asleep.release("k")
    assert third.holds("k")


def taken_over(folder, clock):
    """A lease whose holder sleeps on another machine, and who took it over."""
    asleep, mine = Leases(folder), Leases(folder, monotonic=clock)
    asleep.take("k")
    elsewhere(folder)
    assert not mine.take("k")
    clock.now_s += LEASE_S + 1
    assert mine.take("k")
    return asleep, mine


@pytest.mark.parametrize("gives_back", ["release", "abandon"])
def test_a_claim_outlives_who_gives_it_back_while_a_row_of_it_may_come(tmp_path, gives_back):
    clock = Clock()
    asleep, mine = taken_over(tmp_path, clock)
    getattr(mine, gives_back)("k")
    mine.close()
    assert files(tmp_path) == ["k.2"]
    third = Leases(tmp_path)
    assert third.is_free("k")
    assert third.take("k")
    assert third.claim("k").id == asleep._held["k"].claim.id
    assert third.claim("k").generation == 3
    third.release("k", stored=True)
    third.close()
    assert files(tmp_path) == []


def test_a_lease_that_may_be_a_sleeper_s_is_swept_after_a_week_alone(tmp_path):
    clock = Clock()
    asleep = Leases(tmp_path)
    asleep.take("k")
    elsewhere(tmp_path)
    for age_s, left in ((2 * LEASE_S, ["k.0"]), (2 * FORGET_S, ["k.0"]), (2 * FORGET_S, [])):
        sweeper = Leases(tmp_path, monotonic=clock)
        set_age(tmp_path, "k.0", age_s)
        sweeper._is_over(tmp_path / "leases" / "k.0")  # no age alone ends a lease
        clock.now_s += LEASE_S + 1 if not left else 0
        sweeper.close()
        assert files(tmp_path) == left


def test_the_next_row_is_of_another_claim_once_one_of_this_is_stored(tmp_path):
    """Its writer ended before it gave the lease back; who measures the point again does not replace its row."""
    clock = Clock()
    dead, store = Leases(tmp_path), Store(tmp_path)
    dead.take("k")
    elsewhere(tmp_path)
    store.append([a_row(point_id="k", claim=str(dead.claim("k")))])
    sharing = Sharing(store)
    sharing._leases._monotonic = clock
    assert not sharing._take("k")
    clock.now_s = LEASE_S + 1
    assert sharing._take("k")
    assert sharing._leases.claim("k").id != dead.claim("k").id
    assert files(tmp_path) == ["k.0"]
    sharing.close()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "leases").write_text("a file")
    with pytest.raises(OSError, match=r"[Dd]irectory|exists"):
        Leases(tmp_path).take("k")


def test_what_else_lies_there_is_nobody_s_lease(tmp_path):
    (tmp_path / "leases").mkdir()
    for name in ("k", "k.x", "kk.0", "k.0.tmp"):
        (tmp_path / "leases" / name).write_text("{")
    assert Leases(tmp_path).take("k")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["take", "release", "sleep", "wake", "time"]))))
def test_two_never_hold_it(tmp_path_factory, steps):
    """Three writers on three machines; one that sleeps renews nothing, and its lease ends."""
    folder = tmp_path_factory.mktemp("store")
    clock = Clock()
    writers = [Leases(folder, monotonic=clock) for _ in range(3)]
    awake, touched = [True] * 3, 0.0
    for who, what in steps:
        if what == "take" and awake[who]:
            if writers[who].take("k"):
                for held in writers[who]._held.values():
                    elsewhere(folder, held.path.name)
        elif what == "release" and awake[who]:
            writers[who].release("k")
        elif what in ("sleep", "wake"):
            awake[who] = what == "wake"
        elif what == "time":
            clock.now_s += RENEW_S
            touched += 1.0
            for writer, is_awake in zip(writers, awake, strict=True):
                for held in writer._held.values():
                    if is_awake and writer._is_mine(held.path):
                        os.utime(held.path, (touched, touched))
        assert sum(writer.holds("k") for writer, is_awake in zip(writers, awake, strict=True) if is_awake) <= 1
