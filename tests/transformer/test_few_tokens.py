"""Steps of few tokens: what a chip copies, pads and permutes so that little is sent, and few operations run."""

from dataclasses import replace

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.plans import mesh_of, plan_of
from builders.unfuse import unfuse
from hlo_collectives import loop_collectives
from hypothesis import given, settings
from partitioned_case import TIME, errors

from bench.sweep.catalog import load_model
from engines.core.model import Model
from engines.transformer.comm.collective_matmul import CPU_ROWS, MATMUL, few_rows
from engines.transformer.comm.volume import layer_transfers
from engines.transformer.layers import positions
from engines.transformer.layers.kv_cache import abstract_cache
from engines.transformer.layers.rope import rope_angles, rotate
from engines.transformer.params.fusion import Fusion, input_parts
from engines.transformer.params.parameters import abstract_parameters
from engines.transformer.partition.kv_heads import kv_slots
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import abstract_arguments, make_prefill
from engines.weights.random import values

pytestmark = pytest.mark.usefixtures("plainly_compiled")


def whole(model: str | Model = "llama", shape=(2, 2, 2), attn_sharding="heads", layout="ws_1d", **more) -> Plan:
    return plan_of(model, shape, layout, attn_sharding, collectives="all_reduce", **more)


@pytest.mark.parametrize("model", ["palm", "llama", "falcon"])
@pytest.mark.parametrize("layout", ["ws_1d", "ws_2d"])
def test_copied_columns_are_the_heads_that_a_chip_reads(model, layout):
    plan = whole(model, layout=layout)
    padded, dim = plan.padded, plan.model.head_dim
    assert padded.kv_copies * padded.kv_heads == plan.chips
    parts = next(each for each in input_parts(plan).values() if each[0][0] == "q")
    fused = Fusion(plan, 7).inputs(parts, 1, slice(0, plan.model.d_model), slice(0, plan.chips))
    start = padded.q_width
    heads, reads, even = kv_slots(plan)
    assert even
    for name in "kv":
        tensor = Fusion(plan, 7).canonical[f"layers.1.{name}"]
        canonical = values(tensor, 7)
        for chip, (held,) in enumerate(heads):
            mine = fused[:, chip, start : start + dim]
            assert np.array_equal(mine, canonical[:, held] if held < plan.model.num_kv_heads else np.zeros_like(mine))
        assert np.array_equal(unfuse(plan, fused, parts, tensor, axis=1), canonical)
        start += dim
    assert all(set(each) == {0} for each in reads)


def test_copies_count_in_memory():
    # Llama-3-70B over 16 chips: 8 key/value heads of 128, each on 2 chips.
    apart, copied = (
        plan_of("llama-3-70b", (4, 4, 1), "ws_1d", "heads", collectives=each) for each in ("plain", "all_reduce")
    )
    devices = mesh_of((1, 1, 1)).devices.ravel()
    mesh = jax.sharding.Mesh(np.broadcast_to(devices, 16).reshape(4, 4, 1), ("x", "y", "z"))
    size = [
        sum(leaf.size for leaf in jax.tree.leaves(abstract_parameters(each, mesh).layers[0].attn.inputs.values))
        for each in (apart, copied)
    ]
    assert size == [80 * 8192 * (64 + 16) * 128, 80 * 8192 * (64 + 32) * 128]
    cached = [sum(leaf.size for leaf in jax.tree.leaves(abstract_cache(each, mesh))) for each in (apart, copied)]
    assert cached[0] == cached[1]


@pytest.mark.parametrize("attn_sharding", ["heads", "batch"])
@pytest.mark.parametrize("model", ["palm", "llama"])
def test_the_compiled_layer_sends_what_the_closed_form_says(model, attn_sharding):
    plan = whole(model, attn_sharding=attn_sharding, cache_len=TIME)
    mesh = mesh_of(plan.mesh_shape)
    text = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, TIME)["prefill"]).compile().as_text()
    closed = [(each.kind, each.axes, each.payload_bytes) for each in layer_transfers(plan, TIME)]
    assert sorted(loop_collectives(text, plan.mesh_shape).elements()) == sorted(closed)
    if attn_sharding == "heads":
        # Nothing but t·E floats for each projection out, which a parallel block shares.
        projections = 1 if plan.model.shares_norm else 2
        assert closed == [("all-reduce", "xyz", 4 * 8 * TIME * plan.model.d_model)] * projections


def test_no_copies_where_a_chip_would_cache_a_head_twice():
    assert whole(attn_sharding="batch").padded.kv_copies == 1
    assert whole(layout="wg_x").padded.kv_copies == 1
    assert whole("gpt").padded.kv_copies == 1  # as many heads as query heads
    assert replace(whole(), collectives="plain").padded.kv_copies == 1


@pytest.mark.slow
@settings(max_examples=2, deadline=None)
@given(
    shape=st.sampled_from([(1, 1, 2), (2, 2, 1), (1, 3, 2), (2, 2, 2)]),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    ffn_layout=st.sampled_from(["ws_1d", "ws_2d", "wg_x"]),
    attn_sharding=st.sampled_from(["heads", "batch"]),
    formats=st.sampled_from([{}, {"weight_dtype": "int8", "kv_dtype": "int8"}]),
)
def test_attention_to_the_cache_before_the_token_is_attention_to_all(
    shape, kv_heads, group, ffn_layout, attn_sharding, formats
):
    chips = int(np.prod(shape))
    model = small_model(num_layers=1, d_model=12 * chips, num_heads=kv_heads * group, num_kv_heads=kv_heads, d_ff=chips)
    plan = whole(model, shape, attn_sharding, ffn_layout, batch_size=chips, unrolled=True, **formats)
    after = errors(plan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions, "reads_before", lambda plan, key_bytes: True)
        before = errors(plan)
    assert before == pytest.approx(after, abs=2e-6)
    assert formats or max(before) < 1e-5


@given(tokens=st.integers(1, 9))
def test_rows_of_a_tile_change_no_product(tokens):
    plan = whole()
    x, w = (np.random.default_rng(0).normal(size=size).astype(np.float32) for size in ((tokens, 12), (12, 5)))

    def product(x, w):
        return few_rows(plan, MATMUL, x, w)

    assert np.allclose(jax.jit(product)(x, w), x @ w, atol=1e-5)
    lowered = jax.jit(product).trace(x, w).lower(lowering_platforms=("tpu",)).as_text()
    assert ("tensor<8x5xf32>" in lowered) is (tokens <= 8)
    assert "pad" not in jax.jit(product).lower(x, w).as_text()


@given(tokens=st.integers(1, 9))
def test_a_cpu_multiplies_one_row_of_bfloat16_as_several(tokens):
    plan = whole(act_dtype="bfloat16", weight_dtype="bfloat16")
    drawn = np.random.default_rng(tokens)
    x, w = (jnp.asarray(drawn.normal(size=size), jnp.bfloat16) for size in ((tokens, 12), (12, 5)))
    product = jax.jit(lambda x, w: few_rows(plan, MATMUL, x, w, jnp.float32))
    exact = np.asarray(x, np.float32) @ np.asarray(w, np.float32)
    np.testing.assert_allclose(product(x, w), exact, rtol=1e-5, atol=1e-5)
    padded = f"tensor<{CPU_ROWS}x5xf32>" in product.trace(x, w).lower(lowering_platforms=("cpu",)).as_text()
    assert padded is (tokens in (1, CPU_ROWS))


@pytest.mark.parametrize("model", ["llama", "falcon"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pairs_are_permuted_exactly(model, dtype, monkeypatch):
    whole_model = MODELS[model]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4, whole_model.head_dim)), dtype)
    angles = rope_angles(whole_model, jnp.arange(5, 7))
    expected = rotate(whole_model, x, angles)
    # As a TPU does it.
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, tpu, default: tpu(*given))
    permuted = rotate(whole_model, x, angles)
    assert permuted.dtype == expected.dtype
    assert np.array_equal(np.asarray(permuted, np.float32), np.asarray(expected, np.float32))


def test_matmuls_may_make_their_own_rows():
    def barriers(collectives):
        plan = replace(whole("gpt", cache_len=1), collectives=collectives)
        mesh = mesh_of(plan.mesh_shape)
        text = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, 1)["prefill"]).as_text()
        return text.count("optimization_barrier")

    assert barriers("all_reduce") < barriers("plain")


def test_a_large_cache_is_read_before_the_token_is_written():
    # Llama-3-70B over 16 chips: 53.5 MB of int8 weights a layer and chip, 128 sequences of 512 and 4,096 keys of 128.
    plan = whole("llama-3-70b", (4, 4, 1), batch_size=128, weight_dtype="int8", unrolled=True)
    assert not positions.reads_before(plan, 16 * 512 * 128)
    assert positions.reads_before(plan, 128 * 512 * 128)
    assert not positions.reads_before(plan, 128 * 4096 * 128)
    assert not positions.reads_before(replace(plan, model=load_model("llama-3-8b")), 128 * 512 * 128)
