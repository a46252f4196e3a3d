import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from bench.measure.stats import median_interval, resampled_medians, summarise

SAMPLES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)


def test_by_hand():
    summary = summarise([4.0, 1.0, 3.0, 2.0, 10.0], 0.95, 200, 0)
    assert (summary.n, summary.mean, summary.median, summary.min, summary.max) == (5, 4.0, 3.0, 1.0, 10.0)
    assert summary.std == pytest.approx(np.sqrt((0 + 9 + 1 + 4 + 36) / 4))
    assert summary.p90 == pytest.approx(4.0 + 0.6 * 6.0)  # rank 0.9 · 4 = 3.6, between 4 and 10
    assert summary.ci_level == 0.95


def test_one_sample_says_nothing_of_its_spread():
    summary = summarise([2.0], 0.95, 100, 0)
    assert (summary.median, summary.std, summary.ci_low, summary.ci_high) == (2.0, 0.0, 2.0, 2.0)


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="no samples"):
        summarise([], 0.95, 100, 0)


@given(SAMPLES, st.integers(0, 3))
def test_order_of_figures_and_same_seed_same_interval(samples, seed):
    summary = summarise(samples, 0.9, 200, seed)
    assert summary.min <= summary.ci_low <= summary.ci_high <= summary.max
    assert summary.min <= summary.median <= summary.p90 <= summary.p99 <= summary.max
    assert summary == summarise(samples, 0.9, 200, seed)


@given(SAMPLES, st.integers(-8, 8))
def test_in_another_unit_all_is_scaled(samples, power):
    scale = 2.0**power
    one, other = summarise(samples, 0.9, 100, 1), summarise([scale * each for each in samples], 0.9, 100, 1)
    for name in ("mean", "median", "std", "p99", "ci_low", "ci_high"):
        assert getattr(other, name) == pytest.approx(scale * getattr(one, name), rel=1e-9)


@given(SAMPLES)
@settings(max_examples=30)
def test_a_higher_level_is_no_narrower(samples):
    values = np.asarray(samples)
    low, high = median_interval(values, 0.99, 300, 0)
    inner_low, inner_high = median_interval(values, 0.8, 300, 0)
    assert low <= inner_low <= inner_high <= high


@pytest.mark.parametrize(
    ("name", "median"), [("exponential", np.log(2)), ("lognormal", 1.0), ("normal", 0.0), ("uniform", 0.5)]
)
def test_the_interval_holds_the_true_median_as_often_as_it_says(name, median):
    trials, level = 600, 0.95
    generator = np.random.default_rng(20260102)
    draws = getattr(generator, name)(size=(trials, 30))
    held = sum(low <= median <= high for low, high in (median_interval(each, level, 400, 1) for each in draws))
    # Three standard deviations of 600 coin tosses are 2.7%; the bootstrap itself is a little off at 30 samples.
    assert 0.91 < held / trials < 0.985


def test_many_samples_are_drawn_in_blocks():
    values = np.random.default_rng(0).normal(size=200_000)
    tracemalloc.start()
    medians = resampled_medians(values, 100, np.random.default_rng(0))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100 * values.size * 8
    assert medians.std() == pytest.approx(np.sqrt(np.pi / 2 / values.size), rel=0.3)
