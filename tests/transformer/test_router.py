"""The router against a loop over tokens and experts in NumPy."""

from typing import Any

import numpy as np
import pytest
from builders.models import moe_model
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.core.model import Model
from engines.transformer.layers.router import choose


@st.composite
def routers(draw: Any) -> tuple[Model, int, float]:
    groups = draw(st.sampled_from([1, 2, 4]))
    experts = groups * draw(st.integers(1, 8))
    kept = draw(st.integers(1, groups))
    k = draw(st.integers(1, kept * (experts // groups)))
    model = moe_model(
        num_experts=experts,
        experts_per_token=k,
        router_groups=groups,
        router_groups_kept=kept,
        router_group_best=draw(st.sampled_from([1, 2])),
        router_score=draw(st.sampled_from(["softmax", "topk_softmax", "sigmoid"])),
        router_normalized=draw(st.booleans()),
        router_scale=draw(st.sampled_from([1.0, 2.5])),
        router_correction=draw(st.booleans()),
    )
    return model, draw(st.integers(0, 2**31)), draw(st.sampled_from([0.0, 1.0, 30.0]))


def loop(model: Model, logits: np.ndarray, correction: np.ndarray | None) -> tuple[list[list[int]], list[list[float]]]:
    """Of each token, its experts from the most to the least wanted, and their weights."""
    count, groups, best_of = model.num_experts, model.router_groups, model.router_group_best
    chosen, weights = [], []
    for row in logits.astype(np.float64):
        odds = np.exp(row - row.max())
        score = {"softmax": odds / odds.sum(), "sigmoid": 1 / (1 + np.exp(-row)), "topk_softmax": row}[
            model.router_score
        ]
        wanted = score if correction is None else score + correction
        members = [range(each * count // groups, (each + 1) * count // groups) for each in range(groups)]
        strength = [sum(sorted((wanted[each] for each in group), reverse=True)[:best_of]) for group in members]
        kept = sorted(range(groups), key=lambda each: -strength[each])[: model.router_groups_kept]
        allowed = [each for group in sorted(kept) for each in members[group]]
        best = sorted(allowed, key=lambda each: -wanted[each])[: model.experts_per_token]
        mine = [score[each] for each in best]
        if model.router_score == "topk_softmax":
            mine = list(np.exp(mine - np.max(mine)) / np.exp(mine - np.max(mine)).sum())
        if model.router_normalized:
            mine = [each / sum(mine) for each in mine]
        chosen.append(best)
        weights.append([each * model.router_scale for each in mine])
    return chosen, weights


@settings(deadline=None, max_examples=25)
@given(routers())
def test_the_router_chooses_and_weighs_as_a_loop_does(drawn: tuple[Model, int, float]) -> None:
    model, seed, skew = drawn
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, model.num_experts)) + skew / np.arange(1, model.num_experts + 1)
    # Multiples of 1/8 far apart in float32, so that rounding cannot change an order.
    logits = (np.round(logits * 8) / 8 + np.arange(model.num_experts) / 1024).astype(np.float32)
    correction = rng.uniform(-0.2, 0.2, model.num_experts).astype(np.float32) if model.router_correction else None
    found = choose(model, logits, correction)
    experts, weights = loop(model, logits, correction)
    assert np.array_equal(found.experts, experts)
    assert np.allclose(found.weights, weights, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("score", ["softmax", "topk_softmax", "sigmoid"])
def test_of_equal_scores_the_lower_number_is_chosen(score: str) -> None:
    model = moe_model(num_experts=6, experts_per_token=3, router_score=score)
    assert np.asarray(choose(model, np.zeros((2, 6), np.float32)).experts).tolist() == [[0, 1, 2]] * 2
