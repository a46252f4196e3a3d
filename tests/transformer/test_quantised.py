import functools
from collections import Counter
from dataclasses import replace

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders.models import MODELS
from builders.plans import mesh_of, plan_of
from hlo_collectives import compiled_prefill, loop_collectives
from hypothesis import given, settings
from jax.sharding import PartitionSpec as P
from partitioned_case import STEPS, TIME, errors

from engines.core.dtypes import LARGEST
from engines.core.layout import FFN_LAYOUTS
from engines.transformer.comm.collective_matmul import matmul_in, project
from engines.transformer.comm.collectives import axis_index
from engines.transformer.comm.ring import ring_axes
from engines.transformer.comm.volume import layer_transfers
from engines.transformer.layers.kv_cache import abstract_cache, make_cache
from engines.transformer.params.describe import described
from engines.transformer.params.parameters import make_parameters
from engines.transformer.params.quantize import dequantize, einsum, quantize, quantize_tokens, stored_bytes
from engines.transformer.params.tree import Stacked
from engines.transformer.partition.overlap import Overlap
from engines.transformer.programs import abstract_arguments, load_parameters, make_decode, make_prefill
from engines.weights.random import prompt

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

LAYOUTS = [name for name in FFN_LAYOUTS if name != "auto"]
NARROW_CACHE = {"weight_dtype": "float32", "act_dtype": "float32", "kv_dtype": "int8"}


def test_quantize_by_hand():
    narrow, scale = quantize(jnp.asarray([[0.0, 0.5, -1.27, 1.0], [0.0, 0.0, 0.0, 0.0]]), "int8")
    assert narrow.dtype == jnp.int8
    assert narrow.tolist() == [[0, 50, -127, 100], [0, 0, 0, 0]]
    assert scale[:, 0].tolist() == pytest.approx([0.01, 1.0])


finite = st.floats(-1e4, 1e4, width=32).filter(lambda value: value == 0 or abs(value) > 1e-6)


@settings(deadline=None, max_examples=60)
@given(values=st.lists(finite, min_size=1, max_size=9), name=st.sampled_from(["int8", "int4"]))
def test_whole_numbers_are_off_by_half_a_scale_at_most(values, name):
    x = np.asarray(values, np.float32)
    narrow, scale = (np.asarray(each) for each in quantize(jnp.asarray(x), name))
    assert np.abs(narrow.astype(np.float32)).max() <= LARGEST[name]
    assert np.abs(narrow.astype(np.float32) * scale - x).max() <= 0.5 * scale[0] * (1 + 1e-5)


@settings(deadline=None, max_examples=60)
@given(values=st.lists(finite, min_size=1, max_size=9))
def test_float8_is_off_by_a_sixteenth_at_most(values):
    x = np.asarray(values, np.float32)
    narrow, scale = (np.asarray(each) for each in quantize(jnp.asarray(x), "float8_e4m3"))
    # Three bits of mantissa; below 2^-6 of the format the steps are of one size, 2^-9.
    bound = np.maximum(np.abs(x) / 16, scale[0] * 2.0**-10) * (1 + 1e-5)
    assert (np.abs(narrow.astype(np.float32) * scale - x) <= bound).all()


def test_a_product_of_int8_by_hand():
    plan = plan_of(MODELS["palm"], (1, 1, 1), "ws_1d", "heads", weight_dtype="int8", act_dtype="int8")
    x = jnp.asarray([[[1.0, -2.0], [0.0, 0.0]]])
    narrow, scale = quantize_tokens(plan, x, ())
    out = dequantize(einsum(plan, "btr,rc->btc", narrow, jnp.asarray([[3, 1], [4, -1]], jnp.int8)), scale)
    # 1 and -2 are 64 (63.5, to even) and -127 at a scale of 2/127.
    expected = np.asarray([[64 * 3 - 127 * 4, 64 + 127], [0, 0]]) * 2 / 127
    np.testing.assert_allclose(out[0], expected, rtol=1e-6)


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("collectives", ["plain", "oneway", "throughput", "latency"])
@pytest.mark.parametrize("ffn_layout", ["ws_1d", "ws_2d", "wg_xy"])
def test_activations_are_gathered_as_int8_with_one_scale_a_token(ffn_layout, collectives):
    """Cut up, the product of one matrix is exactly that of whole rows with one scale: nothing depends on the chips."""
    formats = {"weight_dtype": "int8", "act_dtype": "int8"}
    plan = plan_of(MODELS["palm"], (1, 2, 2), ffn_layout, "heads", collectives=collectives, **formats)
    single = plan_of(MODELS["palm"], (1, 1, 1), "ws_1d", "heads", **formats)
    rows, columns = 32, 48
    x = jnp.asarray(np.random.default_rng(0).normal(size=(24, rows)), jnp.float32)
    w = jnp.asarray(np.random.default_rng(1).integers(-127, 128, (1, rows, columns)), jnp.int8)
    expected = project(single, matmul_in(single), x, Stacked(w, 0))
    narrow, scale = quantize_tokens(single, x, ())
    exact = np.asarray(narrow, np.int64) @ np.asarray(w[0], np.int64) * np.asarray(scale, np.float64)
    np.testing.assert_allclose(expected, exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())
    mesh = mesh_of(plan.mesh_shape)
    matmul = matmul_in(plan)
    stored = P(None, plan.axes.stored_embed or None, plan.axes.stored_ffn or None)
    residual, produced = (P(plan.axes.batch or None, axes or None) for axes in (plan.axes.residual, plan.axes.column))
    looped = plan.overlap is Overlap.RING_OF_ACTIVATIONS

    def run(x, w):
        if looped:
            for axes, dim in ((ring_axes(matmul.gathered), 1), (ring_axes(matmul.scattered), 2)):
                w = jnp.roll(w, -axis_index(axes) * (w.shape[dim] // plan.axes.size(axes)), dim)
        return project(plan, matmul, x, Stacked(w, 0))

    cut = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(residual, stored), out_specs=produced, check_vma=False))
    np.testing.assert_allclose(cut(x, w), expected, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


def test_a_sum_of_int8_does_not_run_over():
    plan = plan_of(MODELS["palm"], (1, 1, 1), "ws_1d", "heads", weight_dtype="int8", act_dtype="int8")
    ones = jnp.full((1, 4096), 127, jnp.int8)
    assert einsum(plan, "be,ve->bv", ones, ones).tolist() == [[4096 * 127 * 127]]


@pytest.mark.parametrize("weight_dtype", ["int8", "int4", "float8_e4m3"])
def test_stored_weights_are_within_half_a_step_of_the_canonical_ones(weight_dtype):
    wide = plan_of(MODELS["gpt"], (1, 2, 1), "ws_2d", "heads")
    made = make_parameters(replace(wide, weight_dtype=weight_dtype), mesh_of((1, 2, 1)), 0)
    step = {"int8": 0.5, "int4": 0.5, "float8_e4m3": 16.0}[weight_dtype]
    for matrix_of in (lambda w: w.layers[0].attn.inputs, lambda w: w.layers[0].ffn.outputs, lambda w: w.embedding):
        each, matrix = matrix_of(described(wide, 0)).values, matrix_of(made)
        exact, held = each.fill(tuple(slice(0, size) for size in each.shape)), np.asarray(matrix.values)
        scale = np.asarray(matrix.scale)
        scale = np.expand_dims(scale.reshape(scale.shape[0], -1) if exact.ndim == 3 else scale, 1)
        assert np.abs(held.astype(np.float32) * scale - exact).max() <= scale.max() * step * 1.00001
        assert np.abs(held.astype(np.float32)).max() == LARGEST[weight_dtype]


@functools.cache
def answers(plan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a prefill and of the steps after it, and the tokens that those generate."""
    mesh, vocab = mesh_of(plan.mesh_shape), plan.model.vocab_size
    weights, cache = load_parameters(plan, mesh, 0), make_cache(plan, mesh)
    tokens = prompt(plan.model, plan.batch_size, TIME, 0)
    first, scores, cache = make_prefill(plan, mesh)(weights, cache, tokens)
    generated, steps, _ = make_decode(plan, mesh, STEPS)(weights, cache, first, np.int32(TIME))
    return np.asarray(scores)[:, :vocab], np.asarray(steps)[..., :vocab], np.asarray(generated)


def differ(plan, other) -> float:
    """max|logits − other's| / max|other's|, over the prefill and every step."""
    ours, theirs = answers(plan), answers(other)
    assert np.array_equal(ours[2], theirs[2])
    return max(
        float(np.abs(mine - its).max() / np.abs(its).max()) for mine, its in zip(ours[:2], theirs[:2], strict=True)
    )


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("attn_sharding", ["heads", "batch"])
@pytest.mark.parametrize("ffn_layout", LAYOUTS)
def test_a_quantized_cache_is_the_same_in_every_layout(ffn_layout, attn_sharding):
    model = MODELS["palm"]
    single = plan_of(model, (1, 1, 1), "ws_1d", "heads", **NARROW_CACHE)
    assert differ(plan_of(model, (2, 2, 2), ffn_layout, attn_sharding, **NARROW_CACHE), single) < 5e-4


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize(
    ("model", "ffn_layout", "attn_sharding", "changes"),
    [
        ("llama", "ws_2d", "heads", {}),
        ("gpt", "wg_x", "batch", {}),
        ("palm", "ws_2d", "batch", {"partitioner": "gspmd"}),
        ("llama", "ws_2d", "batch", {"weight_dtype": "int4", "kv_dtype": "float8_e4m3", "collectives": "throughput"}),
        ("gpt", "wg_xy", "heads", {"weight_dtype": "int4"}),
        ("palm", "wg_xyz", "batch", {"weight_dtype": "float8_e4m3", "collectives": "latency"}),
        ("gpt", "ws_2d", "heads", {"weight_dtype": "float8_e4m3", "partitioner": "gspmd"}),
    ],
)
def test_other_formats_are_the_same_when_cut_up(model, ffn_layout, attn_sharding, changes):
    formats = {**NARROW_CACHE, **changes}
    cut = plan_of(MODELS[model], (2, 2, 2), ffn_layout, attn_sharding, **formats)
    single = replace(cut, mesh_shape=(1, 1, 1), ffn_layout="ws_1d", attn_sharding="heads")
    # A value of the cache on the edge between two numbers may be rounded either way.
    assert differ(cut, replace(single, collectives="plain", partitioner="manual")) < 5e-4


@pytest.mark.parametrize(
    ("ffn_layout", "attn_sharding", "changes"),
    [
        ("ws_2d", "batch", {}),
        ("wg_xy", "batch", {}),
        ("ws_2d", "heads", {"collectives": "latency"}),
        ("ws_2d", "heads", {"partitioner": "gspmd"}),
    ],
)
def test_int8_activations_in_every_family_of_layouts(ffn_layout, attn_sharding, changes):
    formats = {"weight_dtype": "int8", "act_dtype": "int8", "kv_dtype": "int8"}
    worst = max(errors(plan_of(MODELS["gpt"], (2, 2, 2), ffn_layout, attn_sharding, **formats, **changes)))
    assert 1e-3 < worst < 0.08


@pytest.mark.parametrize(
    ("weight_dtype", "kv_dtype", "least", "most"),
    [
        ("float32", "int8", 5e-4, 0.01),
        ("float32", "float8_e4m3", 5e-3, 0.05),
        ("float8_e4m3", "float32", 0.02, 0.15),
        ("int4", "float32", 0.05, 0.4),
    ],
)
def test_each_format_errs_by_its_precision(weight_dtype, kv_dtype, least, most):
    formats = {"weight_dtype": weight_dtype, "act_dtype": "float32", "kv_dtype": kv_dtype}
    assert least < max(errors(plan_of(MODELS["palm"], (1, 2, 1), "ws_2d", "heads", **formats))) < most


def test_bytes_of_a_narrow_cache():
    plans = {
        name: plan_of(MODELS["llama"], (2, 2, 2), "ws_2d", "batch", kv_dtype=name) for name in ("bfloat16", "int8")
    }
    mesh = mesh_of((2, 2, 2))
    held = {
        name: sum(stored_bytes(each.shape, each.dtype) for each in abstract_cache(plan, mesh)[0].values())
        for name, plan in plans.items()
    }
    # Heads of 8: one float32 scale for eight int8, so 12 bytes where bfloat16 has 16.
    assert held["int8"] / held["bfloat16"] == 12 / 16
    (cache,) = make_cache(plans["int8"], mesh)
    assert {name: each.dtype.name for name, each in cache.items()} == {
        "k": "int8", "v": "int8", "k_scale": "float32", "v_scale": "float32"
    }  # fmt: skip


def test_lowers_in_narrow_formats_without_an_array():
    plan = plan_of(
        MODELS["llama"], (2, 2, 2), "ws_2d", "batch", weight_dtype="int4", act_dtype="bfloat16", kv_dtype="int8"
    )
    mesh = mesh_of(plan.mesh_shape)
    arguments = abstract_arguments(plan, mesh, TIME)["decode"]
    memory = make_decode(plan, mesh, STEPS).lower(*arguments).compile().memory_analysis()
    parts = [(each.sharding.shard_shape(each.shape), each.dtype) for each in jax.tree.leaves(arguments)]
    assert memory.argument_size_in_bytes == sum(stored_bytes(*part) for part in parts)
    cache = [(each.sharding.shard_shape(each.shape), each.dtype) for each in abstract_cache(plan, mesh)[0].values()]
    # All of the cache is donated: it goes in and comes out as one.
    assert memory.alias_size_in_bytes == sum(stored_bytes(*part) for part in cache)


@pytest.mark.parametrize("weight_dtype", ["int4", "float8_e4m3"])
def test_narrow_weights_are_gathered_as_they_are_stored(weight_dtype):
    plan, text = compiled_prefill("gpt", (2, 2, 2), "wg_xy", "batch", weight_dtype)
    expected = {(each.kind, each.axes, each.payload_bytes) for each in layer_transfers(plan, TIME)}
    assert set(loop_collectives(text, plan.mesh_shape)) == expected


def test_int8_activations_are_gathered_in_a_byte_each():
    cut, _ = compiled_prefill("gpt", (2, 2, 2), "ws_2d", "batch", "int8")
    plan = replace(cut, act_dtype="int8")
    mesh = mesh_of(plan.mesh_shape)
    lowered = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, TIME)["prefill"])
    found = loop_collectives(lowered.compile().as_text(), plan.mesh_shape)
    # The rest is in bfloat16, which a CPU sends as float32.
    whole = ("all-gather", "all-reduce")
    expected = Counter((each.kind, each.axes, each.payload_bytes) for each in layer_transfers(plan, TIME))
    assert {each: count for each, count in found.items() if each[0] in whole} == {
        each: count for each, count in expected.items() if each[0] in whole
    }
    # E/X = 32/2 columns of 8 sequences of 5 tokens, an attention and a feed-forward.
    assert found["all-gather", "yz", 8 * TIME * 16] == 2
