"""Steps over many nights: what two nights show, what one does not, and how often chance is taken for a step."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.compare.nights.steps import (
    LEAST_NOISE,
    StepRules,
    common_noise,
    find_steps,
    noise_between,
    noise_for,
    smallest_found,
)

RULES = StepRules()
NOISE = 0.008
"""Between nights whose time is the median of three processes."""


def nights(generator, *, step=0.0, at=40, count=60, noise=NOISE, disturbed=0.03):
    """Times of a point: noise, a step, and processes that other load made slower by 5 to 30%."""
    processes = generator.normal(0, noise, (count, 3))
    hit = generator.random(processes.shape) < disturbed
    processes[hit] += generator.uniform(0.05, 0.3, hit.sum())
    logs = np.median(processes, axis=1)
    logs[at:] += math.log1p(step)
    return np.exp(logs)


def test_a_step_by_hand():
    times = [1.0, 1.001, 0.999, 1.0, 1.001, 1.1, 1.101]
    assert find_steps(times[:-1], LEAST_NOISE, RULES) == []
    (step,) = find_steps(times, LEAST_NOISE, RULES)
    assert (step.first, step.confirmed) == (5, 6)
    assert step.ratio == pytest.approx(1.1005, rel=1e-3)
    # Back again: another step, and the level between them is its own.
    both = find_steps([*times, 1.0, 1.001], LEAST_NOISE, RULES)
    assert [each.first for each in both] == [5, 7]
    assert both[1].ratio == pytest.approx(1 / both[0].ratio, rel=1e-3)


@given(
    slow=st.floats(1.0, 100.0),
    place=st.integers(0, 19),
    seed=st.integers(0, 1000),
)
@settings(max_examples=50, deadline=None)
def test_one_noisy_night_is_no_step(slow, place, seed):
    times = np.exp(np.random.default_rng(seed).uniform(-0.01, 0.01, 20))
    times[place] *= slow
    assert find_steps(times, 0.01, RULES) == []


@given(scale=st.floats(1e-9, 1e9), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_the_unit_of_time_changes_nothing(scale, seed):
    times = nights(np.random.default_rng(seed), step=0.08)
    found = [(step.first, step.confirmed) for step in find_steps(times, NOISE, RULES)]
    assert [(step.first, step.confirmed) for step in find_steps(times * scale, NOISE, RULES)] == found


@given(seed=st.integers(0, 100), until=st.integers(3, 60))
@settings(max_examples=30, deadline=None)
def test_later_nights_take_back_nothing_that_was_said(seed, until):
    times = nights(np.random.default_rng(seed), step=0.06)
    whole = [(step.first, step.confirmed) for step in find_steps(times, NOISE, RULES)]
    part = [(step.first, step.confirmed) for step in find_steps(times[:until], NOISE, RULES)]
    assert part == [each for each in whole if each[1] < until]


def test_steps_of_5_percent_are_found_within_two_nights_and_chance_seldom_is_one():
    generator = np.random.default_rng(0)
    quiet = [nights(generator) for _ in range(150)]
    common = common_noise([np.log(times) for times in quiet])
    assert common == pytest.approx(NOISE / math.sqrt(3) * 1.15, rel=0.25)  # of a median of three
    false = sum(len(find_steps(times, common, RULES)) for times in quiet)
    assert false <= len(quiet) * 60 / 1000
    for size in (0.05, 0.10):
        stepped = [nights(generator, step=size, count=42) for _ in range(150)]
        found = sum(any(step.first == 40 for step in find_steps(times, common, RULES)) for times in stepped)
        assert found >= 0.97 * len(stepped)


@pytest.mark.parametrize("a_night", [1.03, 1.01, 1.005])
def test_a_slow_drift_is_found(a_night):
    times = np.exp(np.random.default_rng(0).normal(0, 0.006, 60))
    times[20:50] *= np.cumprod(np.full(30, a_night))
    times[50:] *= a_night**30
    found = [step for step in find_steps(times, 0.006, RULES) if step.ratio > 1]
    assert found
    assert found[0].confirmed <= 20 + math.ceil(math.log(1.1) / math.log(a_night))
    assert math.prod(step.ratio for step in found) >= 1 + (a_night**30 - 1) / 2


def test_the_noise_is_of_neighbours_and_forgets_steps_and_drifts():
    logs = np.random.default_rng(1).normal(0, 0.01, 400)
    assert noise_between(logs)[0] == pytest.approx(0.01, rel=0.1)
    assert noise_between(logs + np.linspace(0, 0.5, 400))[0] == pytest.approx(0.01, rel=0.1)
    assert noise_between(np.concatenate([logs, logs + 1]))[0] == pytest.approx(0.01, rel=0.1)
    assert noise_between([0.0]) == (0.0, 0.0)
    assert math.isnan(common_noise([[0.0], []]))
    assert common_noise([[0.0, 0.0, 0.0]]) == LEAST_NOISE


def test_the_smallest_step_that_is_found():
    generator = np.random.default_rng(3)
    noise = 0.01
    size = smallest_found(noise, 30, RULES)
    found = 0
    for _ in range(200):
        logs = generator.normal(0, noise, 32)
        logs[30:] += math.log1p(size)
        found += any(step.first == 30 for step in find_steps(np.exp(logs), noise, RULES))
    assert found == pytest.approx(190, abs=12)
    assert smallest_found(0.02, 30, RULES) > size
    for step in (0.031, 0.05, 0.2):
        assert smallest_found(noise_for(step, RULES), RULES.window, RULES) == pytest.approx(step)
    assert noise_for(0.02, RULES) == 0  # smaller than what is reported
    assert smallest_found(noise, 3, RULES) > size


def test_times_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        find_steps([1.0, 0.0, 1.0], NOISE, RULES)
