"""How many experts a batch hits, against every way to choose them."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.core.routing import busiest_share, choice_probabilities, distinct_experts, expected_blocks


@pytest.mark.parametrize(("experts", "per_token", "tokens"), [(5, 2, 2), (4, 1, 3), (4, 3, 2), (3, 3, 1)])
def test_distinct_experts_is_the_mean_over_every_choice_of_every_token(
    experts: int, per_token: int, tokens: int
) -> None:
    ways = list(product(combinations(range(experts), per_token), repeat=tokens))
    mean = np.mean([len(set().union(*chosen)) for chosen in ways])
    assert distinct_experts(experts, per_token, tokens) == pytest.approx(mean)
    for rows in range(1, tokens + 2):
        counts = [np.bincount(np.concatenate(chosen), minlength=experts) for chosen in ways]
        blocks = np.mean([np.ceil(each / rows).sum() for each in counts])
        assert expected_blocks(experts, per_token, tokens, rows) == pytest.approx(blocks)


def test_blocks_are_those_of_all_rows_where_every_token_has_every_expert() -> None:
    assert expected_blocks(4, 4, 65, 16) == 4 * 5
    # Of many rows an expert's last block is half full on average: mean rows of 4096 · 2/8 fill 1024/64 blocks and 1/2.
    assert expected_blocks(8, 2, 4096, 64) == pytest.approx(8 * 16.5, rel=1e-2)


@given(st.integers(1, 64), st.integers(1, 64), st.floats(0, 3))
def test_a_token_has_k_experts_whose_popularity_follows_zipf_where_not_every_token_wants_one(
    experts: int, per_token: int, skew: float
) -> None:
    per_token = min(per_token, experts)
    found = choice_probabilities(experts, per_token, skew)
    assert found.sum() == pytest.approx(per_token)
    assert found.max() <= 1 + 1e-12
    inside = found < 1 - 1e-12
    scaled = found * np.arange(1, experts + 1) ** skew
    assert np.ptp(scaled[inside]) <= 1e-9 * max(1.0, scaled.max()) if inside.any() else per_token == experts


@given(st.integers(1, 64), st.integers(1, 64), st.floats(0, allow_infinity=False))
def test_any_skew_gives_each_token_its_k_experts(experts: int, per_token: int, skew: float) -> None:
    per_token = min(per_token, experts)
    found = choice_probabilities(experts, per_token, skew)
    assert found.sum() == pytest.approx(per_token)
    assert np.all(np.diff(found) <= 1e-12)


@given(st.integers(2, 64), st.integers(1, 8), st.floats(0, 2))
def test_more_tokens_hit_more_experts_and_skew_hits_fewer(experts: int, per_token: int, skew: float) -> None:
    per_token = min(per_token, experts)
    hit = distinct_experts(experts, per_token, np.array([0, 1, 2, 64, 10**7]), skew)
    assert hit[0] == 0
    assert hit[1] == pytest.approx(per_token)
    assert np.all(np.diff(hit) >= -1e-9)
    assert np.all(hit <= distinct_experts(experts, per_token, np.array([0, 1, 2, 64, 10**7])) + 1e-9)


def test_the_busiest_chip_has_its_even_share_without_skew_and_more_with_it() -> None:
    assert busiest_share(8, 2, 4) == pytest.approx(1 / 4)
    # π = 8/15, 4/15, 2/15, 1/15 would be Σ1/2^r; 1/r: 12, 6, 4 and 3 of 25. Two chips: ranks 1 and 4, 2 and 3.
    assert busiest_share(4, 1, 2, 1.0) == pytest.approx(15 / 25)
