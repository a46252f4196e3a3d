"""Nights drawn from the processes of a machine: what is drawn, and what the rule says of them."""

import numpy as np
import pytest
from builders.rows import a_row
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.compare.nights.simulate import Plan, noise_of, processes_of, simulate
from bench.compare.nights.steps import LEAST_NOISE, StepRules, find_steps

RULES = StepRules()


def test_the_processes_of_a_point_in_the_order_in_which_they_ran():
    made = [("03", 3.0, True), ("01", 1.0, True), ("02", 9.0, False)]
    rows = [
        a_row(latency_s=time, samples_s=[time], valid=valid, created_at=f"2026-01-01T00:{minute}:00.000+00:00")
        for minute, time, valid in made
    ]
    rows.append(a_row(source="predicted", latency_s=5.0))
    assert list(processes_of(rows).values()) == [[1.0, 3.0]]


@pytest.mark.parametrize("step", [0.05, 0.10, -0.06])
def test_without_noise_a_step_is_told_on_its_second_night(step):
    plan = Plan(step=step)
    found = simulate([2.0], LEAST_NOISE, RULES, plan, np.random.default_rng(0))
    assert found.confirmed == [plan.at + 1]
    assert np.exp(found.logs) == pytest.approx([2.0] * plan.at + [2.0 * (1 + step)] * (plan.nights - plan.at))


def test_a_night_is_the_median_of_processes_in_a_row():
    """One disturbed process of six is in half of the nights of three, and the median of none."""
    times = [1.0, 1.0, 7.0, 1.0, 1.0, 1.0]
    assert set(simulate(times, 0.01, RULES, Plan(confirm=0), np.random.default_rng(0)).logs) == {0.0}
    # Of two in a row, two nights of six have both. Further processes, of another hour, outvote them now and then.
    times = [1.0, 1.0, 7.0, 7.0, 1.0, 1.0]
    slow = [
        sum(log > 0 for log in simulate(times, 0.01, RULES, Plan(confirm=confirm), np.random.default_rng(0)).logs)
        for confirm in (0, 2)
    ]
    assert slow[0] == pytest.approx(60 / 3, abs=10)
    assert slow[1] < slow[0]


@given(seed=st.integers(0, 1000), step=st.sampled_from([0.0, 0.05, 0.1]))
@settings(max_examples=20, deadline=None)
def test_what_is_told_as_nights_come_is_what_the_series_says(seed, step):
    generator = np.random.default_rng(seed)
    times = np.exp(generator.normal(0, 0.02, 40)).tolist()
    plan = Plan(step=step)
    common = noise_of([times], plan, generator)
    told = simulate(times, common, RULES, plan, generator)
    assert list(told.confirmed) == [each.confirmed for each in find_steps(np.exp(told.logs), common, RULES)]


def test_the_noise_between_nights_of_three_processes():
    generator = np.random.default_rng(0)
    times = np.exp(generator.normal(0, 0.02, 400)).tolist()
    assert noise_of([times], Plan(), generator) == pytest.approx(0.67 * 0.02, rel=0.1)  # of a median of three normals
