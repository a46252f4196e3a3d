"""Weights in groups, float8 matmuls with a 16-bit wire, a head of its own format: right in every layout, and held as
the closed form says."""

import functools
from dataclasses import replace
from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.plans import mesh_of, plan_of
from builders.points import point
from hlo_collectives import loop_collectives
from hypothesis import given, settings
from jax import lax
from partitioned_case import TIME, errors

from engines.analytic.engine import AnalyticEngine
from engines.core.dtypes import weight_bytes
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.layout import FFN_LAYOUTS
from engines.transformer.comm.collective_matmul import MATMUL
from engines.transformer.comm.volume import layer_transfers
from engines.transformer.params.describe import described
from engines.transformer.params.grouped import Grouped
from engines.transformer.params.parameters import abstract_parameters, make_parameters
from engines.transformer.params.quantize import einsum, stored_bytes
from engines.transformer.params.tree import Matrix, Stacked
from engines.transformer.partition.resolve import check_formats
from engines.transformer.programs import abstract_arguments, make_prefill
from engines.weights.formats import Groups, steps

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

LAYOUTS = [name for name in FFN_LAYOUTS if name != "auto"]
GROUPS = {"weight_dtype": "int4", "weight_group_size": 4, "head_dtype": "bfloat16"}
EXACT = {**GROUPS, "act_dtype": "float32", "head_dtype": "float32"}
FLOAT8 = {"weight_dtype": "float8_e4m3", "act_dtype": "float8_e4m3", "kv_dtype": "bfloat16", "head_dtype": "bfloat16"}


def grouped(matrix: np.ndarray, size: int, dtype: str = "int4") -> Grouped:
    """A float32 matrix [rows, columns] in groups."""
    rows, columns = matrix.shape
    made = Groups(lambda index: matrix[index], 0, size, steps(dtype), jnp.dtype(jnp.bfloat16))
    whole = (slice(0, rows // size), slice(0, columns))
    return Grouped(
        jnp.asarray(made.values((whole[0], slice(0, size), whole[1]))).astype(dtype),
        jnp.asarray(made.scales(whole), jnp.bfloat16),
        jnp.asarray(made.zeros(whole)).astype(dtype),
    )


def test_a_group_by_hand():
    # From −1 to 2.75 in 15 steps of a quarter: 0 is the fourth from the least, and stored less 8.
    held = grouped(np.asarray([[-1.0], [0.0], [1.1], [2.75], [0.5], [1.0], [3.75], [0.0]], np.float32), 4)
    assert held.scale.tolist() == [[0.25], [0.25]]
    assert held.zero.tolist() == [[4 - 8], [0 - 8]]
    assert held.values[..., 0].tolist() == [[0 - 8, 4 - 8, 8 - 8, 15 - 8], [2 - 8, 4 - 8, 15 - 8, 0 - 8]]
    assert held.dequantized(jnp.float32)[:, 0].tolist() == [-1.0, 0.0, 1.0, 2.75, 0.5, 1.0, 3.75, 0.0]


rows_of = st.lists(st.floats(-1e4, 1e4, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6), min_size=8, max_size=8)


@settings(deadline=None, max_examples=50)
@given(values=rows_of, dtype=st.sampled_from(["int4", "int8"]))
def test_groups_are_off_by_half_a_step_and_keep_zeros(values, dtype):
    exact = np.asarray(values, np.float32)[:, None]
    held = grouped(exact, 4, dtype)
    off = np.abs(np.asarray(held.dequantized(jnp.float32)) - exact).reshape(2, 4, 1)
    step = np.asarray(held.scale, np.float32)[:, None]
    # A scale that was rounded down to 16 bits (by 2^-9 at most) reaches that much less far.
    assert (off <= step * (1 + 2.0**-9 * steps(dtype))).all()
    assert (off[exact.reshape(2, 4, 1) == 0] == 0).all()
    groups = exact.reshape(2, 4, 1)
    least, most = (np.minimum(groups.min(1), 0), np.maximum(groups.max(1), 0))
    middle, half = (most + least)[:, None] / 2, (most - least)[:, None] / 2
    inside = np.abs(groups - middle) < 0.9 * half
    assert (off <= step * 1.01 * (0.5 + 0.5 * ~inside + 2.0**-9 * steps(dtype))).all()


@pytest.mark.parametrize("tokens", [1, 3, 4, 20])
@pytest.mark.parametrize(("top", "bottom"), [(0, 32), (8, 24), (3, 29), (9, 15), (16, 17)])
def test_a_product_is_that_of_the_dequantized_matrix_wherever_it_is_cut(tokens, top, bottom):
    """With few tokens (fewer than half of a group's rows) sums of groups are scaled, with many the matrix."""
    matrix = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    held = grouped(matrix, 8)
    stack = held.map(lambda each: jnp.stack([jnp.zeros_like(each), each]))
    block = Stacked(stack, 1).block(slice(top, bottom), slice(1, 5))
    exact = np.asarray(held.dequantized(jnp.float32))[top:bottom, 1:5]
    assert np.array_equal(block.dequantized(jnp.float32), exact)
    assert block.shape == exact.shape
    x = np.random.default_rng(1).normal(size=(tokens, bottom - top)).astype(np.float32)
    np.testing.assert_allclose(block.multiplied(x, lax.Precision.HIGHEST), x @ exact, rtol=1e-5, atol=1e-5)


def test_a_product_of_float8_by_hand():
    plan = plan_of(MODELS["palm"], **FLOAT8)
    w = jnp.asarray([[3.0, 1.0], [4.0, -1.0]], jnp.float8_e4m3fn)
    x = jnp.asarray([[448.0, -200.0], [0.0, 0.0], [1.0, -0.5]], jnp.float32)
    # −200 lies between 192 and 208 of the format, and goes to the even one; the last row's scale is 1/448.
    expected = [[448 * 3 - 192 * 4, 448 + 192], [0, 0], [3 - 0.5 * 4, 1 + 0.5]]
    np.testing.assert_allclose(einsum(plan, MATMUL, x, w), expected, rtol=1e-6)
    # A head in 16 bits is multiplied in 16 bits.
    assert einsum(plan, MATMUL, x, w.astype(jnp.bfloat16).astype(jnp.float32)).tolist()[0][1] == 648.0


@functools.cache
def errors_of_one_device():
    return errors(plan_of(MODELS["gpt"], **EXACT))


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("attn_sharding", ["heads", "batch"])
@pytest.mark.parametrize("ffn_layout", LAYOUTS)
def test_groups_are_the_same_in_every_layout(ffn_layout, attn_sharding):
    """Groups lie as in the whole matrix, so that a layout changes the order of sums alone."""
    cut = errors(plan_of(MODELS["gpt"], (2, 2, 2), ffn_layout, attn_sharding, **EXACT))
    assert cut == pytest.approx(errors_of_one_device(), rel=1e-3)
    assert 0.02 < max(cut) < 0.2


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize(
    ("model", "shape", "ffn_layout", "attn_sharding", "changes"),
    [
        ("palm", (2, 2, 2), "ws_2d", "batch", {"collectives": "throughput"}),
        ("gpt", (1, 1, 4), "ws_1d", "heads", {"collectives": "latency"}),
        ("gpt", (2, 2, 2), "wg_xy", "batch", {"collectives": "throughput"}),
        ("palm", (2, 2, 2), "wg_xyz", "batch", {"collectives": "oneway"}),
        ("palm", (2, 2, 2), "ws_2d", "batch", {"collectives": "latency", "decodes": True}),
        ("gpt", (2, 2, 2), "ws_2d", "heads", {"partitioner": "gspmd"}),
        ("llama", (2, 2, 1), "ws_2d", "heads", {"unrolled": True}),
    ],
)
@pytest.mark.parametrize("formats", [GROUPS, FLOAT8, {**FLOAT8, "head_dtype": None}], ids=["groups", "float8", "all"])
def test_rings_and_partitioners(model, shape, ffn_layout, attn_sharding, changes, formats):
    keys = {"act_dtype": "bfloat16", **formats, **changes}
    worst = max(errors(plan_of(MODELS[model], shape, ffn_layout, attn_sharding, **keys)))
    assert 0.01 < worst < (0.25 if formats is GROUPS else 0.15)


def test_int8_matmuls_leave_a_head_in_sixteen_bits():
    formats = {"weight_dtype": "int8", "act_dtype": "int8", "kv_dtype": "int8"}
    of = partial(plan_of, MODELS["palm"], (2, 2, 2), "ws_2d", "batch")
    left = max(errors(of(**formats, head_dtype="bfloat16")))
    assert 1e-3 < left < max(errors(of(**formats))) < 0.08


@pytest.mark.parametrize("ffn_layout", LAYOUTS)
@pytest.mark.parametrize(
    "formats",
    [
        {"weight_dtype": "int4", "weight_group_size": 32, "act_dtype": "bfloat16"},
        {"weight_dtype": "int8", "weight_group_size": 16, "act_dtype": "bfloat16", "head_dtype": "int4"},
        {"weight_dtype": "float8_e4m3", "act_dtype": "bfloat16", "head_dtype": "bfloat16"},
        {"weight_dtype": "bfloat16"},
    ],
)
def test_weights_take_the_bytes_of_the_closed_form(ffn_layout, formats):
    """The arrays of one chip against ``weights_bytes`` of engine=analytic, but for what it leaves out: vectors."""
    model = small_model(d_model=512, d_ff=1024, num_heads=16, num_kv_heads=8, head_dim=32, vocab_size=1024,
                        tied_embedding=False)  # fmt: skip
    asked = point(model, "tpu-v4", engine="analytic", num_chips=8, phase="prefill", batch_size=8, input_len=16,
                  output_len=0, ffn_layout=ffn_layout, attn_sharding="batch", **formats)  # fmt: skip
    (answer,) = AnalyticEngine().estimate([asked])
    names = ("weight_dtype", "weight_group_size", "head_dtype", "act_dtype", "kv_dtype")
    plan = plan_of(model, (2, 2, 2), ffn_layout, "batch", **{name: getattr(asked, name) for name in names})
    arrays = abstract_parameters(plan, mesh_of((2, 2, 2)))

    def held(tree):
        return sum(stored_bytes(each.sharding.shard_shape(each.shape), each.dtype) for each in jax.tree.leaves(tree))

    matrices = jax.tree.leaves(arrays, is_leaf=lambda node: isinstance(node, Matrix))
    assert sum(held(each.values) for each in matrices if isinstance(each, Matrix)) == answer.facts.weights_bytes
    # What is left, norms and channels' scales: some vectors of 512 to 4096 numbers for each of two layers.
    assert held(arrays) - answer.facts.weights_bytes < 4 * 4 * (2 * 4096 + 2 * 1024)


@pytest.mark.parametrize("dtype", ["int4", "int8"])
@pytest.mark.parametrize("size", [4, 8])
def test_every_array_of_a_matrix_in_groups_is_held_in_its_share(dtype, size):
    plan = plan_of(MODELS["gpt"], (2, 2, 1), "ws_2d", weight_dtype=dtype, weight_group_size=size)
    made, whole = make_parameters(plan, mesh_of((2, 2, 1)), 0), described(replace(plan, weight_group_size=None), 0)
    for matrix, exact in ((made.layers[0].attn.inputs, whole.layers[0].attn.inputs), (made.layers[0].ffn.outputs,) * 2):
        held = sum(stored_bytes(each.shape, each.dtype) for each in jax.tree.leaves(matrix.values))
        assert held == np.prod(exact.values.shape) * weight_bytes(dtype, size)


def test_groups_are_gathered_as_they_are_stored():
    plan = plan_of(MODELS["gpt"], (2, 2, 2), "wg_xy", "batch", **GROUPS, act_dtype="bfloat16")
    mesh = mesh_of(plan.mesh_shape)
    lowered = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, TIME)["prefill"])
    found = loop_collectives(lowered.compile().as_text(), plan.mesh_shape)
    wanted = [each for each in layer_transfers(plan, TIME) if each.what.endswith(("weights", "scales", "zeros"))]
    assert {each.what.split()[-1] for each in wanted} == {"weights", "scales", "zeros"}
    for each in wanted:
        # A CPU sends 16 bits as 32.
        sent = each.payload_bytes * (2 if each.what.endswith("scales") else 1)
        assert (each.kind, each.axes, sent) in found


def test_float8_matmuls_send_sixteen_bits():
    narrow, wide = (
        plan_of(MODELS["gpt"], (2, 2, 2), "ws_2d", "batch", **{**FLOAT8, "act_dtype": act})
        for act in ("float8_e4m3", "bfloat16")
    )
    assert layer_transfers(narrow, TIME) == layer_transfers(wide, TIME)
    mesh = mesh_of(narrow.mesh_shape)
    found = [
        loop_collectives(
            make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, TIME)["prefill"]).compile().as_text(),
            plan.mesh_shape,
        )
        for plan in (narrow, wide)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("size", "shape", "ffn_layout", "changes", "words"),
    [
        (3, (1, 1, 1), "ws_1d", {}, "d_model = 32"),
        (32, (2, 2, 2), "ws_2d", {}, "d_model = 16 on a chip"),
        (16, (1, 2, 2), "ws_1d", {}, "heads · head_dim = 8 on a chip"),
        (8, (1, 1, 8), "ws_1d", {"collectives": "oneway"}, "d_model = 4 on a chip"),
    ],
)
def test_groups_that_a_chip_cannot_hold_whole(size, shape, ffn_layout, changes, words):
    keys = {"weight_dtype": "int4", "weight_group_size": size, "act_dtype": "bfloat16", **changes}
    with pytest.raises(InvalidRequest, match="weight_group_size") as refused:
        plan_of(MODELS["gpt"], shape, ffn_layout, **keys)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("formats", "words"),
    [
        ({"kv_dtype": "int4"}, ("kv_dtype=int4", "it supports")),
        ({"act_dtype": "float8_e4m3", "weight_dtype": "int8"}, ("act_dtype=float8_e4m3", "use weight_dtype=float8")),
        ({"act_dtype": "int8", "weight_dtype": "int8", "weight_group_size": 128}, ("weight_group_size=128", "leave")),
        ({"act_dtype": "float8_e4m3", "weight_dtype": "float8_e4m3"}, ("hw=a100-80gb", "use act_dtype=bfloat16")),
        ({"act_dtype": "int4", "weight_dtype": "int4"}, ("act_dtype=int4", "it supports")),
    ],
)
def test_formats_that_cannot_run_are_refused_in_a_sentence(formats, words):
    asked = point("llama-3-70b", "a100-80gb", engine="jax", num_chips=8, phase="prefill", batch_size=1, input_len=8,
                  output_len=0, **formats)  # fmt: skip
    with pytest.raises(Unsupported) as refused:
        check_formats(asked)
    assert all(word in str(refused.value) for word in words)
