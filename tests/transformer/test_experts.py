"""A mixture of experts, partitioned: against a loop over tokens and experts, and the model on one device."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from builders.models import moe_model
from builders.plans import mesh_of, plan_of
from builders.points import point
from hypothesis import given, settings
from hypothesis import strategies as st
from partitioned_case import errors

from engines.core.errors import InvalidRequest, Unsupported
from engines.core.model import Model
from engines.transformer.layers.experts import mixture, route
from engines.transformer.params.parameters import make_parameters
from engines.transformer.params.tree import only_layer
from engines.transformer.partition.resolve import check_formats
from engines.transformer.partition.resolve import plan_of as plan_of_point
from engines.weights.random import tensors, values

pytestmark = pytest.mark.usefixtures("plainly_compiled")

DEEPSEEK: dict[str, Any] = {
    "num_layers": 3,
    "dense_layers": 1,
    "router_score": "sigmoid",
    "router_correction": True,
    "router_groups": 4,
    "router_groups_kept": 2,
    "router_normalized": True,
    "router_scale": 2.5,
    "shared_expert_d_ff": 32,
}
OSS: dict[str, Any] = {"ffn_bias": True, "router_bias": True, "router_score": "topk_softmax", "attn_bias": True}
QWEN2: dict[str, Any] = {"shared_expert_d_ff": 32, "shared_expert_gate": True}


def loop(model: Model, x: np.ndarray, chosen: np.ndarray, weights: np.ndarray, capacity: int | None) -> np.ndarray:
    """Each token through each of its experts, in order; an expert takes ``capacity`` tokens and no more."""
    specs = tensors(model)
    w = {name: values(specs[f"layers.0.experts.{name}"], 0).astype(np.float64) for name in ("gate", "up", "wo")}
    out, taken = np.zeros_like(x), np.zeros(model.num_experts, int)
    for token, experts in enumerate(chosen):
        for expert, weight in zip(experts, weights[token], strict=True):
            taken[expert] += 1
            if capacity is None or taken[expert] <= capacity:
                gate, up = x[token] @ w["gate"][expert], x[token] @ w["up"][expert]
                out[token] += weight * (gate / (1 + np.exp(-gate)) * up) @ w["wo"][expert]
    return out


@st.composite
def mixtures(draw: Any) -> tuple[Model, int, float, float | None, int]:
    experts = draw(st.integers(1, 9))
    model = moe_model(num_experts=experts, experts_per_token=draw(st.integers(1, experts)), num_layers=1)
    capacity = draw(st.sampled_from([None, None, 0.5, 1.0]))
    cached_bytes = draw(st.sampled_from([0, 1 << 20]))  # with 0 even these matrices are large for a CPU
    return model, draw(st.integers(1, 40)), draw(st.sampled_from([0.0, 5.0])), capacity, cached_bytes


@settings(deadline=None, max_examples=8)
@given(mixtures())
def test_routed_tokens_equal_a_loop_over_experts(drawn: tuple[Model, int, float, float | None, int]) -> None:
    model, tokens, skew, capacity, cached_bytes = drawn
    plan = plan_of(model, batch_size=tokens, expert_capacity=capacity, unrolled=True)
    w = only_layer(make_parameters(plan, mesh_of((1, 1, 1)), 0).layers[0]).experts
    assert w is not None
    # Tokens that are alike go to the same experts.
    x = np.random.default_rng(tokens).normal(size=(tokens, 32)) + skew * np.random.default_rng(0).normal(size=32)
    x = x.astype(np.float32)
    chosen = jax.jit(lambda each: route(plan, w, each))(x)
    room = None if capacity is None else plan.capacity_of(tokens)
    expected = loop(model, x.astype(np.float64), np.asarray(chosen.experts), np.asarray(chosen.weights), room)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engines.transformer.layers.expert_matrix.CACHED_BYTES", cached_bytes)
        found = jax.jit(lambda each: mixture(plan, w, each))(x)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max()))


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, {}),
        (DEEPSEEK, {"ffn_layout": "ws_1d", "expert_axes": "xy", "unrolled": True}),
        (DEEPSEEK, {"ffn_layout": "ws_2d", "expert_axes": "xyz", "expert_dispatch": "all_to_all"}),
        (OSS, {"ffn_layout": "ws_2d", "expert_axes": "y"}),
        (OSS, {"ffn_layout": "ws_2d", "expert_axes": "y", "expert_dispatch": "all_to_all", "unrolled": True}),
        (OSS | QWEN2, {"ffn_layout": "ws_2d", "expert_axes": "xz", "partitioner": "gspmd"}),
        (QWEN2, {"ffn_layout": "wg_xy", "expert_axes": "yz", "expert_dispatch": "all_to_all"}),
        (QWEN2, {"ffn_layout": "wg_xyz", "expert_axes": "xz", "attn_sharding": "batch"}),
        ({}, {"ffn_layout": "wg_x", "expert_axes": "xy", "expert_dispatch": "all_to_all", "attn_sharding": "batch"}),
        ({}, {"ffn_layout": "ws_1d", "expert_axes": "xy", "expert_dispatch": "all_to_all", "attn_sharding": "batch"}),
        ({}, {"ffn_layout": "ws_1d", "expert_axes": "z", "collectives": "oneway", "expert_dispatch": "all_to_all"}),
        (QWEN2, {"ffn_layout": "wg_xy", "expert_axes": "", "collectives": "latency"}),
        (QWEN2, {"ffn_layout": "ws_2d", "expert_axes": "xz", "collectives": "all_reduce"}),
        (
            {},
            {"ffn_layout": "ws_1d", "expert_axes": "yz", "collectives": "all_reduce", "expert_dispatch": "all_to_all"},
        ),
        # As many rows as there are tokens: nothing is dropped.
        ({}, {"ffn_layout": "ws_1d", "expert_axes": "yz", "expert_capacity": 4.0}),
        ({}, {"ffn_layout": "ws_2d", "expert_axes": "xz", "expert_capacity": 4.0, "expert_dispatch": "all_to_all"}),
    ],
)
def test_every_layout_equals_one_device(changes: dict[str, Any], keys: dict[str, Any]) -> None:
    plan = plan_of(moe_model(**changes), (2, 2, 2) if keys else (1, 1, 1), **keys)
    assert max(errors(plan)) < 2e-6


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize(
    ("keys", "bound"),
    [
        ({"weight_dtype": "int8", "ffn_layout": "wg_xyz", "expert_axes": "yz"}, 0.05),
        ({"weight_dtype": "int8", "act_dtype": "int8", "expert_axes": "yz", "expert_dispatch": "all_to_all"}, 0.15),
        ({"weight_dtype": "int4", "weight_group_size": 4, "ffn_layout": "ws_2d", "expert_axes": "x"}, 0.3),
        ({"weight_dtype": "float8_e4m3", "ffn_layout": "ws_2d", "expert_axes": "z", "unrolled": True}, 0.15),
    ],
)
def test_quantized_experts_are_near(keys: dict[str, Any], bound: float) -> None:
    # Every token goes to every expert, so that rounding changes no choice.
    assert max(errors(plan_of(moe_model(experts_per_token=8), (2, 2, 2), **keys))) < bound


def test_blocks_of_mxfp4_are_the_same_in_every_layout() -> None:
    sizes = {"d_model": 256, "num_heads": 8, "head_dim": 32, "expert_d_ff": 256, "num_layers": 1}
    model = moe_model(experts_per_token=8, **sizes)
    formats = {"weight_dtype": "mxfp4", "head_dtype": "float32"}
    one = errors(plan_of(model, **formats))
    split = errors(plan_of(model, (2, 2, 2), "ws_1d", expert_axes="xyz", expert_dispatch="all_to_all", **formats))
    # Of 4 bits a sixth is a step at most between two powers of two.
    assert max(one) < 0.3
    assert split == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "keys", "key"),
    [
        ({"num_experts": 6}, {"expert_axes": "xy"}, "expert_axes"),
        ({"expert_d_ff": 20}, {"expert_axes": ""}, "expert_axes"),
        ({"shared_expert_d_ff": 20}, {"expert_axes": "xyz"}, "shared_expert_d_ff"),
        ({}, {"expert_axes": "xyz", "expert_dispatch": "all_to_all", "batch_size": 4}, "expert_dispatch"),
    ],
)
def test_what_does_not_split_is_refused(changes: dict[str, Any], keys: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan_of(moe_model(**changes), (2, 2, 2), **keys)
    assert key in str(caught.value)


@pytest.mark.parametrize("name", ["mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-20b", "deepseek-v3", "palm-switch-16x62b"])
def test_a_point_of_a_shipped_model_with_experts_is_read_whole(name: str) -> None:
    asked = point(
        name, "tpu-v5p", num_chips=64, engine="compiled", phase="decode", batch_size=512, input_len=1, output_len=1
    )
    check_formats(asked)
    plan = plan_of_point(asked)
    assert plan.experts.experts
    sends = 2 * asked.model.experts_per_token <= plan.experts.shards
    assert plan.experts.all_to_all == sends
    with pytest.raises(Unsupported, match="routing_skew"):
        check_formats(replace(asked, routing_skew=1.0))


@pytest.mark.parametrize(("batch", "dispatch"), [(4, "gather"), (8, "all_to_all")])
def test_a_dispatch_that_is_left_open_is_one_that_the_batch_allows(batch: int, dispatch: str) -> None:
    # Eight chips share a prompt's tokens by whole sequences, however many tokens these have.
    keys: dict[str, Any] = {"engine": "compiled", "phase": "prefill", "num_chips": 8, "tensor_parallel": 8}
    plan = plan_of_point(point("mixtral-8x7b", "h100-80gb", batch_size=batch, input_len=512, output_len=1, **keys))
    plan.check()
    assert plan.expert_dispatch == dispatch


def test_a_slice_without_ragged_exchanges_gathers_tokens() -> None:
    keys: dict[str, Any] = {"engine": "compiled", "phase": "decode", "batch_size": 512, "input_len": 1, "output_len": 1}
    dispatch = {
        chips: plan_of_point(point("qwen3-30b-a3b", "tpu-v5e", num_chips=chips, **keys)).expert_dispatch
        for chips in (16, 64)
    }
    assert dispatch == {16: "all_to_all", 64: "gather"}
