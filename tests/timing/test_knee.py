"""The search for the largest rate under limits, against rates that are known: by hand, and of a queue by Erlang."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure.knee import find_knee
from engines.core.errors import InvalidRequest
from engines.core.load_test import LoadRules


@given(
    knee=st.floats(1e-2, 1e4),
    first=st.floats(1e-2, 1e4),
    tolerance=st.floats(1e-3, 0.5),
)
def test_the_rate_found_is_under_the_knee_by_no_more_than_the_tolerance(knee, first, tolerance):
    rules = LoadRules(first_rate_per_s=first, rate_tolerance=tolerance, max_runs=200)
    found = find_knee(rules, lambda rate: rate, lambda rate: rate <= knee)
    assert found.best[0] <= knee <= found.above
    assert found.above <= found.best[0] * (1 + tolerance)
    assert found.best[1] == found.best[0]
    # From one factor of two, each further run halves the logarithm of what is open.
    doublings = math.ceil(abs(math.log2(knee / first))) + 2
    assert len(found.tried) <= doublings + math.ceil(math.log2(max(1, math.log(2) / math.log1p(tolerance)))) + 1


@given(runs=st.integers(2, 12), under=st.booleans())
def test_a_search_without_a_knee_ends(runs, under):
    found = find_knee(LoadRules(max_runs=runs), lambda rate: rate, lambda rate: under)
    assert len(found.tried) == runs
    assert (found.best is None, found.above is None) == (not under, under)


def waits(rate, service_s, count, seed=0):
    """Seconds [count] that requests wait for one server, by Lindley's recursion, with Poisson arrivals."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    # W(n+1) = max(0, W(n) + service − gap): the walk minus its least value so far.
    walk = np.concatenate([[0.0], np.cumsum(service_s - gaps[1:])])
    return walk - np.minimum.accumulate(np.minimum(walk, 0.0))


def erlang(wait_s, rate, service_s):
    """P(W ≤ wait) of an M/D/1 queue (Erlang 1909)."""
    total, load = 0.0, rate * service_s
    for k in range(math.floor(wait_s / service_s) + 1):
        gap = rate * (wait_s - k * service_s)
        total += (-gap) ** k / math.factorial(k) * math.exp(gap)
    return (1 - load) * total


def test_the_knee_of_a_queue_is_where_erlang_puts_it():
    """99% of requests wait at most two service times; each of them takes 0.1 s."""
    service_s, limit_s = 0.1, 0.2
    low, high = 0.1, 9.9
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if erlang(limit_s, middle, service_s) >= 0.99 else (low, middle)
    rules = LoadRules(rate_tolerance=0.01, max_runs=30)
    found = find_knee(
        rules,
        lambda rate: waits(rate, service_s, 200_000),
        lambda seen: np.mean(seen <= limit_s) >= rules.share,
    )
    assert found.best[0] == pytest.approx(low, rel=0.04)
    assert 0 < low < 1 / service_s


@pytest.mark.parametrize(
    ("key", "value"),
    [("share", 0.0), ("share", 1.1), ("first_rate_per_s", 0), ("rate_tolerance", -1.0), ("max_runs", 1)],
)
def test_rules_that_make_no_sense_are_refused(key, value):
    with pytest.raises(InvalidRequest, match=rf"engine\.{key}="):
        LoadRules(**{key: value})


def test_a_rate_is_kept_for_a_time():
    rules = LoadRules(min_time_s=30.0, min_requests=100)
    assert (rules.requests(20.0), rules.requests(1.0), rules.requests(None)) == (600, 100, 100)
