import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from bench.significance import holm, mann_whitney, median_ratio


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
