from dataclasses import replace
from functools import partial

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.plans import mesh_of
from builders.plans import plan_of as build_plan
from hypothesis import HealthCheck, given, settings
from partitioned_case import relative_error

from bench.sweep.catalog import load_chip
from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.transformer.layers.kv_cache import Cached, make_cache
from engines.transformer.layers.mask import Causal, Window
from engines.transformer.layers.online_softmax import attend
from engines.transformer.layers.per_head import PerHead
from engines.transformer.layers.score_blocks import block_shape, in_strips, uses_blocks
from engines.transformer.layers.splash_attention import kernel_attend
from engines.transformer.options import CPU_BLOCK, PrefillOptions
from engines.transformer.params.describe_layers import query_factor
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import abstract_arguments, load_parameters, make_prefill
from engines.weights.random import prompt

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

TIME = 11
BLOCKS = PrefillOptions(attention="blockwise", block=4)


plan_of = partial(build_plan, cache_len=TIME)


def plain_attention(q, keys, vals, position):
    """In float64, one query at a time."""
    batch, time, heads, dim = q.shape
    out = np.zeros(q.shape)
    for b, t, h in np.ndindex(batch, time, heads):
        slot, seen = h // (heads // keys.shape[1]), position + t + 1
        scores = keys[b, slot, :seen].astype(float) @ q[b, t, h] / np.sqrt(dim)
        weights = np.exp(scores - scores.max())
        out[b, t, h] = weights / weights.sum() @ vals[b, slot, :seen]
    return out


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    batch=st.integers(1, 3),
    slots=st.integers(1, 2),
    group=st.integers(1, 2),
    time=st.integers(2, 9),
    position=st.integers(0, 7),
    spare=st.integers(0, 3),
    block=st.integers(1, 6),
    traced=st.booleans(),
    spread=st.sampled_from([1.0, 30.0]),
)
def test_by_blocks_is_attention(batch, slots, group, time, position, spare, block, traced, spread):
    limit, dim = position + time + spare, 4
    random = np.random.default_rng(0)
    q = spread * random.standard_normal((batch, time, slots * group, dim), np.float32)
    keys, vals = (random.standard_normal((batch, slots, limit, dim), np.float32) for _ in range(2))
    # What the cache holds beyond the last query is no number of this run's.
    keys[:, :, position + time :] = vals[:, :, position + time :] = 1e30
    plan = plan_of(prefill=PrefillOptions(attention="blockwise", block=block))
    cached = Cached(keys, None), Cached(vals, None)
    if traced:
        out = jax.jit(lambda at: attend(plan, query_factor(dim) * q, *cached, Causal(at)))(position)
    else:
        out = jax.jit(lambda: attend(plan, query_factor(dim) * q, *cached, Causal(position)))()
    expected = plain_attention(q, keys, vals, position)
    assert np.abs(out - expected).max() < 1e-5 * max(1, np.abs(expected).max())


@given(time=st.integers(5, 13), block=st.integers(1, 2), group=st.integers(1, 2))
@settings(max_examples=8, deadline=None)
def test_strips_of_a_whole_prompt_are_attention(time, block, group):
    random = np.random.default_rng(0)
    q = random.standard_normal((4, time, 2 * group, 4), np.float32)
    keys, vals = (random.standard_normal((4, 2, time, 4), np.float32) for _ in range(2))
    plan = plan_of(prefill=PrefillOptions(block=block))
    assert in_strips(plan, q.shape, time, Causal(0))
    assert not in_strips(plan, q.shape, time, Causal(1))
    assert not in_strips(plan, (1 << 24, *q.shape[1:]), time, Causal(0))  # too many scores at once
    program = jax.jit(lambda: attend(plan, query_factor(4) * q, Cached(keys, None), Cached(vals, None), Causal(0)))
    assert " while(" not in program.lower().compile().as_text()
    assert np.abs(program() - plain_attention(q, keys, vals, 0)).max() < 1e-5


@pytest.mark.parametrize(("slots", "group", "time", "dim"), [(1, 3, 256, 16), (2, 1, 128, 128)])
def test_the_kernel_is_attention_to_pallas_interpreter(slots, group, time, dim):
    random = np.random.default_rng(0)
    q = random.standard_normal((2, time, slots * group, dim), np.float32)
    keys, vals = (random.standard_normal((2, slots, time, dim), np.float32) for _ in range(2))
    expected = attend(plan_of(), q, Cached(keys, None), Cached(vals, None), Causal(0))
    out = kernel_attend(q, keys, vals, Causal(0), interpret=True)
    assert np.abs(out - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("window", [Window(70, chunked=False), Window(96, chunked=True), None])
def test_the_kernel_s_windows_caps_and_sinks_are_those_of_plain_attention(window):
    random, slots, group, time, dim = np.random.default_rng(0), 2, 2, 256, 16
    q = 3 * random.standard_normal((2, time, slots * group, dim), np.float32)
    keys, vals = (random.standard_normal((2, slots, time, dim), np.float32) for _ in range(2))
    heads = PerHead(sinks=jax.numpy.asarray(2 * random.standard_normal((1, slots, group, 1, 1), np.float32)))
    plan, mask = plan_of(small_model(attn_softcap=4.0)), Causal(0, window=window)
    expected = attend(plan, q, Cached(keys, None), Cached(vals, None), mask, heads=heads)
    out = kernel_attend(q, keys, vals, mask, heads.sinks, 4.0, interpret=True)
    assert np.abs(out - expected).max() < 1e-5 * np.abs(expected).max()
    plain = attend(plan_of(), q, Cached(keys, None), Cached(vals, None), Causal(0))
    assert np.abs(expected - plain).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "packed", "says"),
    [
        ({"chip": load_chip("cpu"), "num_chips": 1}, False, "engine.attention=splash: .*hw=cpu"),
        ({"input_len": 200}, False, "multiple of 128"),
        ({"kv_dtype": "int8"}, False, "bfloat16"),
        ({"partitioner": "gspmd"}, False, "partitioner=manual"),
        ({}, True, "whole prompts"),
        ({"model": small_model(position="alibi")}, False, "position=alibi"),
    ],
)
def test_what_the_kernel_does_not_take(changes, packed, says):
    asked = {
        "model": MODELS["palm"], "chip": load_chip("tpu-v4"), "engine": "jax", "phase": "prefill", "num_chips": 4,
        "batch_size": 4, "input_len": 256, "output_len": 0,
    }  # fmt: skip
    PrefillOptions(attention="splash").check_kernel(Point(**asked), packed=False)
    with pytest.raises(InvalidRequest, match=says):
        PrefillOptions(attention="splash").check_kernel(Point(**{**asked, **changes}), packed)


def test_the_loop_visits_no_block_above_the_diagonal():
    plan = plan_of(prefill=BLOCKS)
    q, keys = np.ones((2, 16, 2, 4), np.float32), Cached(np.ones((2, 1, 16, 4), np.float32), None)
    text = jax.jit(lambda: attend(plan, q, keys, keys, Causal(0))).lower().as_text()
    # 4 blocks of 4 queries see 1, 2, 3 and 4 blocks of keys; both sequences share a block.
    assert "dense<10> : tensor<i32>" in text


def test_sequences_share_a_block_only_while_it_stays_small():
    plan = plan_of(prefill=PrefillOptions(block=512))
    assert block_shape(plan, 24, 1, 2048, 2048) == (12, 512, 512)
    assert block_shape(plan, 16, 64, 2048, 2048) == (1, 512, 512)
    # 1300 queries in three even parts.
    assert block_shape(plan, 1, 8, 1300, 1300) == (1, 434, 512)
    assert block_shape(plan, 1, 8, 100, 300) == (1, 100, 300)


def test_auto_is_by_blocks_where_scores_are_many():
    plan = plan_of()
    assert not uses_blocks(plan, (512, 1, 64, 128), 32768)
    assert not uses_blocks(plan, (512, 1024, 64, 128), 1024)
    assert not uses_blocks(plan, (1, 2048, 1, 128), 2048)
    assert uses_blocks(plan, (2, 2048, 1, 128), 2048)
    assert not uses_blocks(replace(plan, prefill=PrefillOptions(attention="direct")), (512, 2048, 64, 128), 2048)
    small = replace(plan, prefill=PrefillOptions(block=CPU_BLOCK))
    assert uses_blocks(small, (1, 512, 8, 64), 512)
    assert not uses_blocks(small, (8, 256, 8, 64), 256)
    # Whole arrays, split over 8 chips: an eighth of the scores is each one's.
    whole = plan_of(shape=(2, 2, 2), ffn_layout="ws_2d", partitioner="gspmd").global_view(mesh_of((2, 2, 2)))
    assert not uses_blocks(whole, (1, 2048, 8, 128), 2048)
    assert uses_blocks(whole, (2, 2048, 8, 128), 2048)


def logits(plan: Plan, seed: int = 0) -> np.ndarray:
    mesh = mesh_of(plan.mesh_shape)
    weights, cache = load_parameters(plan, mesh, seed), make_cache(plan, mesh)
    tokens = prompt(plan.model, plan.batch_size, plan.cache_len, seed)
    scores = make_prefill(plan, mesh)(weights, cache, tokens)[1]
    return np.asarray(scores)[:, : plan.model.vocab_size]


@pytest.mark.parametrize(
    ("model", "ffn_layout", "attn_sharding", "changes"),
    [
        ("gpt", "ws_2d", "heads", {"collectives": "throughput"}),
        ("llama", "ws_2d", "batch", {"batch_size": 4}),
        ("falcon", "wg_xy", "heads", {}),
        ("llama", "ws_1d", "batch", {"partitioner": "gspmd"}),
    ],
)
def test_layouts_by_blocks(model, ffn_layout, attn_sharding, changes):
    plan = plan_of(model, (2, 2, 2), ffn_layout, attn_sharding, prefill=BLOCKS, **changes)
    tokens = prompt(plan.model, plan.batch_size, TIME, 0)
    assert relative_error(plan.model, tokens, (TIME - 1,), logits(plan)[None]) < 1e-5


def test_a_quantised_cache_by_blocks():
    plan = plan_of("llama", (2, 2, 2), "ws_2d", "heads", kv_dtype="int8")
    at_once, by_block = (logits(replace(plan, prefill=each)) for each in (PrefillOptions(attention="direct"), BLOCKS))
    assert np.abs(by_block - at_once).max() < 1e-5 * np.abs(at_once).max()


def temporary_bytes(plan: Plan) -> float:
    mesh = mesh_of(plan.mesh_shape)
    lowered = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, plan.cache_len)["prefill"])
    return lowered.compile().memory_analysis().temp_size_in_bytes


def test_memory_of_a_long_prefill_grows_with_its_length_and_not_with_its_square():
    model = small_model(num_layers=1, num_heads=2, max_positions=1 << 16)
    short, long = (temporary_bytes(plan_of(model, cache_len=length, batch_size=1)) for length in (8192, 32768))
    assert long < 4.2 * short
    # All scores of 2 heads in float32.
    assert long < 0.02 * 2 * 32768**2 * 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"attention": "flash"}, "engine.attention=flash"), ({"block": 0}, "engine.attention_block=0")],
)
def test_unknown_ways_of_reading(changes, says):
    with pytest.raises(InvalidRequest, match=says):
        PrefillOptions(**changes).check(1)
