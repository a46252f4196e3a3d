"""The order in which points are answered, and how long they are said to take."""

from dataclasses import replace
from itertools import groupby, pairwise
from types import SimpleNamespace

import pytest
from builders.points import point
from builders.rows import a_row
from hypothesis import given
from hypothesis import strategies as st

from bench.measure.timing import TimingConfig
from bench.run.durations import LEAST_S, Durations, EngineDurations, runs_of
from bench.run.make_row import PointTask
from bench.run.schedule import SAME, InOrder, scheduled
from bench.run.time_left import TimeLeft
from engines.core.engine import Estimator, Runner

TIMING = TimingConfig()


class Measures(Runner):
    """An engine whose points share programs where their batch is the same but for its tens."""

    name, source, code = "jax", "measured", ()

    def program_id(self, point):
        raise NotImplementedError

    prepare = program_id

    def shares_programs(self, point):
        return replace(point, batch_size=point.batch_size % 10 + 1)


class States(Estimator):
    name, source, code = "compiled", "compiled", ()

    def program_id(self, point):
        raise NotImplementedError

    estimate = program_id


def tasks_of(sizes):
    return [
        PointTask(
            point=point(
                "tiny", "cpu", num_chips=8, engine="jax", phase="decode", batch_size=size, input_len=16, output_len=4
            ),
            point_id=f"{index}",
            source="measured",
            sweep=None,
        )
        for index, size in enumerate(sizes)
    ]


def knowing(engine, seconds):
    """Durations of an engine by point_id."""
    found = Durations()
    found._engines[engine] = EngineDurations({key: [took_s] for key, took_s in seconds.items()})
    return found


sizes = st.lists(st.integers(1, 40), min_size=1, max_size=12, unique=True)


@given(sizes, st.data())
def test_all_tasks_once_groups_together_and_longest_first(sizes, data):
    tasks = tasks_of(sizes)
    took = {task.point_id: data.draw(st.sampled_from([1.0, 20.0, 300.0])) for task in tasks}
    engine = tasks[0].point.engine
    ordered, expected = scheduled(tasks, Measures(), TIMING, knowing(engine, took))
    assert sorted(task.point_id for task in ordered) == sorted(took)
    group = Measures().shares_programs
    runs = [list(each) for _, each in groupby(ordered, key=lambda task: group(task.point))]
    assert len(runs) == len({group(task.point) for task in tasks})
    sums = [sum(expected[task.point_id].sorts_by_s for task in run) for run in runs]
    assert all(before * SAME >= after for before, after in pairwise(sums))
    for run in runs:
        inside = [expected[task.point_id].sorts_by_s for task in run]
        assert inside == sorted(inside, reverse=True)


@given(sizes)
def test_points_of_which_nothing_is_known_stay_as_they_were_asked(sizes):
    """An estimator's time is not that of what it estimates; only its earlier rows say it."""
    tasks = tasks_of(sizes)
    ordered, _ = scheduled(tasks, States(), TIMING, Durations())
    assert ordered == tasks


def test_a_small_point_is_not_put_behind_a_smaller_one():
    tasks = tasks_of([1, 2, 3])
    ordered, expected = scheduled(tasks, Measures(), TIMING, knowing("x", {}))
    assert ordered == tasks
    assert all(each.sorts_by_s >= LEAST_S for each in expected.values())


def test_runs_by_the_rules_of_timing():
    """A run of 2 s: 6 to warm up, 10 samples; one of 1 ms samples for a second; one of an hour is stopped."""
    assert runs_of(2.0, TIMING) == pytest.approx(12 + 20)
    assert runs_of(1e-3, TIMING) == pytest.approx(1.006)
    assert runs_of(3600.0, TIMING) == pytest.approx(6 * 3600 + 30 + 3600)


def test_what_took_twice_as_long_for_twice_the_run_will_again():
    found = EngineDurations()
    for run_s in (1.0, 2.0, 4.0):
        found.add(f"{run_s}", run_s, 10 * run_s)
    assert found.expected("new", 8.0) == pytest.approx(80.0)
    assert found.expected("2.0", 1e9) == 20.0  # this very point took that long


@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(1e-2, 1e4)), min_size=1, max_size=8), st.floats(1e-6, 1e3))
def test_a_longer_run_never_takes_less_nor_more_than_in_proportion(pairs, run_s):
    found = EngineDurations(pairs=pairs)
    once, twice = found.expected("new", run_s), found.expected("new", 2 * run_s)
    assert once * (1 - 1e-9) <= twice <= 2 * once * (1 + 1e-9)


def test_time_to_go_is_said_once_a_row_tells_it():
    left = TimeLeft(Durations())
    tasks = tasks_of([1, 2, 3, 4])
    _, expected = scheduled(tasks, States(), TIMING, Durations())
    job = SimpleNamespace(engine="compiled")
    left.expect(SimpleNamespace(job=job, expected=expected, at_once=2, is_repeated=False))
    assert left.text() == "time to go not known yet"
    left.ended(a_row(engine="compiled", point_id="0", took_s=200.0), new=True)
    assert left.seconds() == pytest.approx(3 * 200 / 2)
    assert left.text() == "about 5 min to go"
    left.ended(a_row(engine="compiled", point_id="1", took_s=None), new=False)
    assert left.seconds() == pytest.approx(200)
    for key in ("2", "3"):
        left.ended(a_row(engine="compiled", point_id=key, took_s=200.0), new=True)
    assert left.text() == ""


@given(st.permutations(range(6)))
def test_rows_stand_as_their_points_were_asked(arrival):
    order = InOrder()
    order.add("jax", [str(number) for number in range(5)])
    rows = [a_row(engine="jax", point_id=str(number)) for number in arrival]
    assert [row.point_id for row in order.sorted(rows)] == [str(number) for number in range(6)]
