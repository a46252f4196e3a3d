"""Nights drawn from the processes of a machine: what is drawn, and what the rule says of them."""

from pathlib import Path

import numpy as np
import pytest
from builders.rows import a_row
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.compare.nights.simulate import Plan, noise_of, processes_of, simulate
from bench.compare.nights.steps import LEAST_NOISE, StepRules, find_steps, noise_for
from bench.rows.store import Store

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


STORES = sorted((Path(__file__).parents[2] / "results" / "noise").iterdir())


@pytest.mark.parametrize("store", STORES, ids=lambda each: each.name)
def test_under_noise_that_was_measured(store):
    """So many processes as bring the noise down to what a step of 5% needs; with any number, chance makes few steps."""
    points = [times for times in processes_of(Store(store).load()).values() if len(times) >= 10]
    generator = np.random.default_rng(1)
    needed = noise_for(0.05, RULES) / 1.25  # the noise of a level is itself only estimated, to a fifth
    numbers = [3 * 2**each for each in range(7)]
    common = {number: noise_of(points, Plan(processes=number), generator) for number in numbers}
    enough = next(number for number in numbers if common[number] <= needed)
    for number in {3, enough}:
        quiet = Plan(processes=number)
        steps = sum(
            len(simulate(times, common[number], RULES, quiet, generator).confirmed)
            for times in points
            for _ in range(60)
        )
        assert steps <= 60 * quiet.nights * len(points) / 1000
    for step, least in ((0.05, 0.95), (0.10, 0.95)):
        plan = Plan(processes=enough, step=step, nights=42)
        found = [
            plan.at + 1 in simulate(times, common[enough], RULES, plan, generator).confirmed
            for times in points
            for _ in range(60)
        ]
        assert np.mean(found) >= least
