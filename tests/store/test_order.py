"""What is stored later is newer, whatever a clock said; where all clocks were right, the time of a row decides."""

import itertools
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from builders.rows import a_row
from hypothesis import given

from bench.rows import store as subject
from bench.rows.part_time import PartTime, moment, next_time, time_of
from bench.rows.repair import compact, inspect, repair
from bench.rows.store import Store

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOURS = st.integers(-10_000, 10_000)


class Clock:
    """Stands for ``datetime`` in the store; ``now`` is what the test says."""

    at = NOON

    @classmethod
    def now(cls, _zone):
        return cls.at


def write(folder, at, number, monkeypatch):
    """A process writes a row of ``number`` at the time that its clock has."""
    with monkeypatch.context() as patch:
        patch.setattr(subject, "datetime", type("At", (Clock,), {"at": at}))
        return Store(folder).append([a_row(created_at=at.isoformat(timespec="milliseconds"), batch_size=number)])


def sizes(folder):
    return [row.batch_size for row in Store(folder).load()]


def newest(folder):
    (row,) = Store(folder).latest().values()
    return row.batch_size


@given(st.lists(HOURS, min_size=1, max_size=6))
def test_the_row_that_was_stored_last_is_the_newest_whatever_the_clocks(tmp_path_factory, hours):
    folder = tmp_path_factory.mktemp("store")
    for number, hour in enumerate(hours, start=1):
        with pytest.MonkeyPatch.context() as monkeypatch:
            write(folder, NOON + timedelta(hours=hour), number, monkeypatch)
        assert newest(folder) == number
    assert sizes(folder) == sorted(sizes(folder))
    compact(Store(folder))
    assert sizes(folder) == list(range(1, len(hours) + 1))
    with pytest.MonkeyPatch.context() as monkeypatch:
        write(folder, NOON - timedelta(days=3000), len(hours) + 1, monkeypatch)
    assert newest(folder) == len(hours) + 1


@given(st.permutations(range(5)))
def test_true_clocks_order_rows_by_when_they_were_made(tmp_path_factory, order):
    """As where files of several machines come together in one store, in any order."""
    folder = tmp_path_factory.mktemp("store")
    for number in order:
        created_at = (NOON + timedelta(minutes=number)).isoformat(timespec="milliseconds")
        Store(folder).append([a_row(created_at=created_at, batch_size=number + 1)])
    assert sizes(folder) == [1, 2, 3, 4, 5]
    compact(Store(folder))
    assert sizes(folder) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("created_at", ["2999-01-01T00:00:00.000+00:00", "tomorrow", "", "2999-01-01", "10000-01-01"])
def test_a_time_that_no_true_clock_makes_does_not_win(tmp_path, created_at):
    store = Store(tmp_path)
    store.append([a_row(created_at=created_at, batch_size=1)])
    store.append([a_row(created_at=datetime.now(UTC).isoformat(timespec="milliseconds"), batch_size=2)])
    assert newest(tmp_path) == 2
    compact(store)
    assert sizes(tmp_path) == [1, 2]


def test_a_time_of_another_zone_counts_as_the_same_instant(tmp_path):
    store = Store(tmp_path)
    store.append([a_row(created_at="2026-03-01T13:00:00+02:00", batch_size=1)])
    store.append([a_row(created_at="2026-03-01T11:30:00.000+00:00", batch_size=2)])
    assert newest(tmp_path) == 2


def test_a_file_is_marked_only_where_a_clock_was_wrong(tmp_path, monkeypatch):
    parts = [write(tmp_path, NOON + timedelta(hours=hours), 1, monkeypatch) for hours in (0, 1, -1, 2)]
    assert [time_of(part).marked for part in parts] == [False, False, True, False]
    assert [part.name for part in Store(tmp_path).parts()] == [part.name for part in parts]


@given(st.lists(HOURS, min_size=1, max_size=20))
def test_the_times_of_files_never_go_back(hours):
    before = None
    for hour in hours:
        after = next_time(before, NOON + timedelta(hours=hour))
        assert before is None or after > before
        assert time_of(subject.Path(f"{after.stamp}-1-abcd-n1.jsonl")) == after
        before = after


def test_a_name_without_a_time_counts_by_its_rows(tmp_path):
    assert time_of(tmp_path / "by-hand.jsonl") is None
    assert time_of(tmp_path / "20261399T000000000000-1-a-n1.jsonl") is None
    assert moment("2026-03-01T12:00:00.000+00:00", None) == "2026-03-01T12:00:00.000+00:00"
    assert moment("2026-03-01T12:00:00.000+00:00", PartTime(NOON + timedelta(1), marked=True)) == (
        "2026-03-02T12:00:00.000+00:00"
    )


def test_a_repaired_file_keeps_its_place(tmp_path, monkeypatch):
    for number, hours in enumerate((0, 2, 1, 3), start=1):
        part = write(tmp_path, NOON + timedelta(hours=hours), number, monkeypatch)
        if number == 3:
            part.write_text(part.read_text() + "{\n")
    store = Store(tmp_path)
    repair(store, inspect(store))
    assert sizes(tmp_path) == [1, 2, 3, 4]


def test_what_is_written_while_files_are_merged_stays_newer(tmp_path, monkeypatch):
    """The merged file takes the time of the newest that it replaces, not that at which it is written."""
    for number in (1, 2):
        write(tmp_path, NOON + timedelta(hours=100 - number), number, monkeypatch)
    merging = Store(tmp_path)
    listed = merging.entries(with_lines=True)
    write(tmp_path, NOON, 3, monkeypatch)
    monkeypatch.setattr(merging, "entries", lambda **_: listed)
    compact(merging)
    assert sizes(tmp_path) == [1, 2, 3]


def test_many_rows_at_one_instant_keep_their_order(tmp_path):
    for number, _ in enumerate(itertools.repeat(None, 30), start=1):
        Store(tmp_path).append([a_row(batch_size=number)])
    assert sizes(tmp_path) == list(range(1, 31))
