import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from bench.measure.significance import PRIOR_FREEDOM, Runs, between_processes, holm, mann_whitney, median_ratio
from engines.core.errors import ShardbenchError


def test_mann_whitney_by_hand():
    # All of three before all of three: 1 of the 20 ways to rank them, and its mirror image.
    assert mann_whitney([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]) == pytest.approx(2 / 20)
    # One exchange of neighbours: U = 1, reached or beaten in 2 of 20 ways a side.
    assert mann_whitney([1.0, 2.0, 4.0], [3.0, 5.0, 6.0]) == pytest.approx(4 / 20)


def test_equal_samples_do_not_differ():
    assert mann_whitney([1.0] * 5, [1.0] * 7) == 1.0


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=20), st.lists(st.floats(0.1, 10), min_size=2, max_size=20))
def test_which_is_called_old_does_not_matter(old, new):
    assert mann_whitney(old, new) == pytest.approx(mann_whitney(new, old))


def test_false_alarms_are_as_rare_as_alpha_says():
    generator = np.random.default_rng(7)
    p_values = [mann_whitney(*generator.exponential(size=(2, 15))) for _ in range(500)]
    assert np.mean(np.asarray(p_values) < 0.05) < 0.08
    assert 0.4 < np.mean(p_values) < 0.6


def test_processes_by_hand():
    # Logarithms 0, 2 against 5, 5: squares 2 and 0 in two degrees of freedom, so a variance of 1 with any prior of
    # itself, an error of 1, a shift of 4, and as many degrees of freedom as there are: t(2) ≥ 4 has p = 0.0572.
    (((ratio, p_value),)) = between_processes([Runs(old=[1.0, np.exp(2)], new=[np.exp(5), np.exp(5)])], 0.95)
    assert ratio.value == pytest.approx(np.exp(4))
    assert p_value == pytest.approx(1 - 4 / np.sqrt(2 + 4**2))
    # The 97.5% quantile of t(2) is 4.303.
    assert (np.log(ratio.ci_low), np.log(ratio.ci_high)) == pytest.approx((4 - 4.3027, 4 + 4.3027), abs=1e-4)


def test_a_point_borrows_the_scatter_of_the_others():
    # Alone, two equal pairs have no scatter at all; beside a point with 2 in two degrees, 2/4 counts four times.
    quiet, loud = Runs(old=[1.0, 1.0], new=[2.0, 2.0]), Runs(old=[1.0, np.exp(2)], new=[1.0, 1.0])
    assert between_processes([quiet], 0.95)[0][1] == 0.0
    (ratio, p_value), _ = between_processes([quiet, loud], 0.95)
    error = np.sqrt(PRIOR_FREEDOM * 0.5 / (PRIOR_FREEDOM + 2))
    assert np.log(ratio.ci_high) - np.log(2) == pytest.approx(2.7764 * error, abs=1e-4)  # t(4)
    assert 0.1 < p_value < 0.5


def test_processes_that_agree_do_not_differ():
    assert between_processes([Runs(old=[1.0, 1.0], new=[1.0])], 0.95)[0][1] == 1.0
    with pytest.raises(ShardbenchError, match="several processes"):
        between_processes([Runs(old=[1.0], new=[2.0])], 0.95)


def test_scatter_between_processes_gives_no_false_alarms_where_samples_of_one_do():
    """Nights of eight points whose processes scatter by 8% and samples in a process by 1%, nothing having changed."""
    generator = np.random.default_rng(5)
    by_samples = by_process = 0
    for _ in range(60):
        scatter = np.exp(generator.normal(0, 0.08, (8, 2, 3)))
        runs = [Runs(old=list(old), new=list(new)) for old, new in scatter]
        found = between_processes(runs, 0.95)
        told = zip(found, holm([p_value for _, p_value in found]), strict=True)
        by_process += any(p_value < 0.01 and ratio.value > 1.05 for (ratio, _), p_value in told)
        samples = scatter[..., :1] * generator.lognormal(0, 0.01, (8, 2, 30))
        p_values = holm([mann_whitney(old, new) for old, new in samples])
        medians = np.median(samples, axis=2)
        by_samples += any(p < 0.01 and new / old > 1.05 for p, (old, new) in zip(p_values, medians, strict=True))
    assert by_samples > 40
    assert by_process <= 3


def test_a_slower_point_is_found_between_processes():
    generator = np.random.default_rng(6)
    found = 0
    for _ in range(60):
        times = np.exp(generator.normal(0, 0.03, (8, 2, 3)))
        times[3, 1] *= 1.3
        p_values = holm([p for _, p in between_processes([Runs(old=list(a), new=list(b)) for a, b in times], 0.95)])
        found += p_values[3] < 0.01
    assert found > 50


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5), st.lists(st.floats(0.1, 10), min_size=1, max_size=5))
def test_which_processes_are_called_old_does_not_matter(old, new):
    ((there, p_there),) = between_processes([Runs(old=old, new=new)], 0.95)
    ((back, p_back),) = between_processes([Runs(old=new, new=old)], 0.95)
    assert p_there == pytest.approx(p_back)
    assert there.value * back.value == pytest.approx(1)
    assert there.ci_low * back.ci_high == pytest.approx(1)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.2 by 4, 3, 2, 1: 0.04, 0.06, 0.06 and 0.2; each at least the one before.
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_order_and_never_lowers(p_values):
    adjusted = holm(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert [after for _, after in pairs] == sorted(adjusted)


def test_the_ratios_interval_holds_the_true_ratio_as_often_as_it_says():
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        old, new = generator.lognormal(0, 0.1, 25), 1.2 * generator.lognormal(0, 0.1, 25)
        ratio = median_ratio(old, new, 0.95, 300, 0)
        assert ratio.ci_low <= ratio.value <= ratio.ci_high
        held += ratio.ci_low <= 1.2 <= ratio.ci_high
    assert 0.9 < held / 300 < 0.99
