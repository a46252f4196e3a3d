"""Lengths of prompts: one law for every engine, and its means in closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.core.method_keys import LENGTHS
from engines.weights.lengths import draw_lengths, moments

DRAWN = [law for law in LENGTHS if law != "equal"]


@pytest.mark.parametrize("law", LENGTHS)
@pytest.mark.parametrize("most", [1, 7, 200])
def test_the_closed_form_is_the_mean_of_what_is_drawn(law, most):
    drawn = draw_lengths(law, 20_000, most, 3).astype(np.float64)
    found = moments(law, most)
    for power, expected in ((1, found.mean), (2, found.mean_square)):
        error = (drawn**power).std() / len(drawn) ** 0.5
        assert (drawn**power).mean() == pytest.approx(expected, abs=5 * error + 1e-9)


@given(law=st.sampled_from(DRAWN), batch=st.integers(1, 40), most=st.integers(1, 3000), seed=st.integers(0, 9))
def test_lengths_lie_between_one_and_the_longest_and_do_not_depend_on_the_batch(law, batch, most, seed):
    lengths = draw_lengths(law, batch, most, seed)
    assert lengths.dtype == np.int32
    assert 1 <= lengths.min() <= lengths.max() <= most
    assert np.array_equal(lengths, draw_lengths(law, batch + 5, most, seed)[:batch])


def test_another_seed_draws_others():
    assert not np.array_equal(draw_lengths("uniform", 10, 2000, 0), draw_lengths("uniform", 10, 2000, 1))


def test_uniform_and_chats_by_hand():
    # 1, 2, 3, 4 equally often: (1 + 2 + 3 + 4)/4 and (1 + 4 + 9 + 16)/4.
    assert (moments("uniform", 4).mean, moments("uniform", 4).mean_square) == (2.5, 7.5)
    # Of 36 requests 8 have one turn (of 8 chats all, …), 1 has eight: Σ k(9 − k)/36 = 120/36 turns of 10 tokens.
    assert moments("trace", 80).mean == pytest.approx(1200 / 36)
    assert set(draw_lengths("trace", 500, 80, 0)) == set(range(10, 90, 10))
    assert moments("equal", 9).keys_a_token == 9
