import math

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.plans import mesh_of, plan_of
from hypothesis import HealthCheck, given, settings
from partitioned_case import STEPS, TIME, errors, relative_error

from engines.core.errors import InvalidRequest
from engines.core.layout import COLLECTIVES, FFN_LAYOUTS
from engines.transformer.layers.kv_cache import abstract_cache, make_cache
from engines.transformer.params.parameters import abstract_parameters, make_parameters
from engines.transformer.partition.resolve import resolve_layout
from engines.transformer.programs import abstract_arguments, make_decode, make_prefill
from engines.weights.random import prompt

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

LAYOUTS = [name for name in FFN_LAYOUTS if name != "auto"]


def test_a_model_without_positions():
    """Other kinds of model are in ``test_combinations`` and, as families, in ``test_family_layouts``."""
    assert max(errors(plan_of(MODELS["no positions"], (2, 2, 2), "ws_1d", "heads"))) < 1e-5


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize(
    ("model", "shape", "ffn_layout", "attn_sharding", "batch_size"),
    [
        ("palm", (1, 1, 1), "ws_1d", "heads", 2),
        ("llama", (2, 1, 1), "ws_2d", "batch", 4),
        ("palm", (1, 2, 1), "ws_2d", "heads", 3),
        ("palm", (1, 1, 8), "ws_2d", "batch", 8),
        ("llama", (8, 1, 1), "ws_2d", "heads", 1),
        ("palm", (2, 2, 2), "ws_2d", "heads", 1),
        ("llama", (2, 2, 2), "ws_1d", "heads", 3),
        ("llama", (2, 2, 2), "ws_2d", "batch", 4),
        ("palm", (2, 2, 2), "ws_1d", "batch", 2),
        ("llama", (1, 2, 4), "wg_xy", "batch", 4),
        ("llama", (4, 1, 2), "wg_x", "heads", 4),
    ],
)
def test_other_meshes_and_small_batches(model, shape, ffn_layout, attn_sharding, batch_size):
    assert max(errors(plan_of(MODELS[model], shape, ffn_layout, attn_sharding, batch_size))) < 1e-5


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize(("heads", "kv_heads"), [(5, 5), (9, 3), (3, 1)])
@pytest.mark.parametrize(("shape", "attn_sharding"), [((1, 2, 3), "heads"), ((1, 2, 3), "batch"), ((3, 2, 1), "batch")])
def test_heads_that_the_chips_do_not_divide(heads, kv_heads, shape, attn_sharding):
    model = small_model(d_model=48, d_ff=96, num_heads=heads, num_kv_heads=kv_heads, head_dim=6)
    plan = plan_of(model, shape, "ws_2d", attn_sharding, 6)
    assert plan.padded.heads % 6 == 0
    assert plan.padded.heads > heads
    assert max(errors(plan)) < 1e-5


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("ffn_layout", ["wg_x", "wg_xy"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 2)])
def test_chips_that_read_different_numbers_of_key_value_heads(heads, kv_heads, ffn_layout):
    # Three chips along z hold two query heads each: the first reads one key/value head, the second two.
    model = small_model(d_model=72, d_ff=12, num_heads=heads, num_kv_heads=kv_heads, head_dim=4)
    assert max(errors(plan_of(model, (2, 1, 3), ffn_layout, "heads", 12))) < 1e-5


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("model", ["palm", "gpt"])
@pytest.mark.parametrize(
    ("weight_dtype", "act_dtype", "least", "most"),
    [("bfloat16", "bfloat16", 1e-4, 0.03), ("float16", "float16", 1e-5, 0.004), ("int8", "float32", 1e-4, 0.03)],
)
def test_narrow_formats_err_by_their_precision(model, weight_dtype, act_dtype, least, most):
    plan = plan_of(
        MODELS[model],
        (2, 2, 2),
        "ws_2d",
        "batch",
        weight_dtype=weight_dtype,
        act_dtype=act_dtype,
        kv_dtype=act_dtype,
    )
    assert least < max(errors(plan)) < most


def test_int8_is_the_same_weights_in_every_layout():
    formats = {"weight_dtype": "int8", "act_dtype": "float32", "kv_dtype": "float32"}
    cut = errors(plan_of(MODELS["gpt"], (2, 2, 2), "ws_2d", "heads", **formats))
    gathered = errors(plan_of(MODELS["gpt"], (2, 2, 2), "wg_xy", "batch", **formats))
    assert cut == pytest.approx(gathered, abs=2e-6)


def test_prefill_in_one_layout_and_decode_in_another_on_the_same_arrays():
    model, shape = MODELS["palm"], (2, 2, 2)
    gathered, stationary = (plan_of(model, shape, name, "batch") for name in ("wg_xyz", "ws_2d"))
    mesh = mesh_of(shape)
    weights, cache = make_parameters(gathered, mesh, 0), make_cache(gathered, mesh)
    tokens = prompt(model, 8, TIME, 0)
    first, _, cache = make_prefill(gathered, mesh)(weights, cache, tokens)
    wanted = abstract_parameters(stationary, mesh), abstract_cache(stationary, mesh)
    same = jax.tree.map(
        lambda held, each: held.sharding.is_equivalent_to(each.sharding, held.ndim), (weights, cache), wanted
    )
    assert jax.tree.all(same)
    decode = make_decode(stationary, mesh, STEPS).lower(weights, cache, first, np.int32(TIME)).compile()
    # A compiled program takes arrays only as they should lie: it never moves them.
    generated, steps, _ = decode(weights, cache, first, np.int32(TIME))
    fed = np.concatenate([tokens, np.asarray(first)[:, None], np.asarray(generated).T[:, :-1]], axis=1)
    output = np.asarray(steps)[..., : model.vocab_size]
    assert relative_error(model, fed, tuple(range(TIME, TIME + STEPS)), output) < 1e-5


def test_decode_repeats_on_its_own_cache():
    plan = plan_of(MODELS["palm"], (2, 2, 2), "ws_2d", "batch")
    mesh = mesh_of(plan.mesh_shape)
    weights, cache = make_parameters(plan, mesh, 0), make_cache(plan, mesh)
    first, _, cache = make_prefill(plan, mesh)(weights, cache, prompt(plan.model, 8, TIME, 0))
    decode = make_decode(plan, mesh, STEPS)
    once, scores, cache = decode(weights, cache, first, np.int32(TIME))
    again, same, cache = decode(weights, cache, first, np.int32(TIME))
    assert np.array_equal(once, again)
    assert np.array_equal(scores, same)


def test_lowers_without_an_array():
    plan = plan_of(MODELS["llama"], (2, 2, 2), "ws_2d", "batch")
    mesh = mesh_of(plan.mesh_shape)
    arguments = abstract_arguments(plan, mesh, TIME)
    compiled = make_decode(plan, mesh, STEPS).lower(*arguments["decode"]).compile()
    held = sum(
        math.prod(each.sharding.shard_shape(each.shape)) * each.dtype.itemsize
        for each in jax.tree.leaves(arguments["decode"])
    )
    assert compiled.memory_analysis().argument_size_in_bytes == held
    assert make_prefill(plan, mesh).lower(*arguments["prefill"]) is not None


@pytest.mark.slow
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    shape=st.sampled_from([(1, 1, 2), (1, 2, 2), (2, 2, 1), (2, 1, 3), (1, 3, 2), (2, 2, 2)]),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    half_dim=st.integers(1, 3),
    wide=st.integers(1, 2),
    ffn=st.integers(1, 3),
    vocab=st.integers(7, 40),
    batch=st.integers(1, 3),
    ffn_layout=st.sampled_from(LAYOUTS),
    attn_sharding=st.sampled_from(["heads", "batch"]),
    block=st.sampled_from(["parallel", "serial"]),
    collectives=st.sampled_from([name for name in COLLECTIVES if name != "auto"]),
    unrolled=st.booleans(),
)
def test_any_dimensions(
    shape, kv_heads, group, half_dim, wide, ffn, vocab, batch, ffn_layout, attn_sharding, block, collectives, unrolled
):
    chips = int(np.prod(shape))
    model = small_model(
        num_layers=1,
        d_model=12 * chips * wide,
        d_ff=chips * ffn,
        num_heads=kv_heads * group,
        num_kv_heads=kv_heads,
        head_dim=2 * half_dim,
        vocab_size=vocab,
        block=block,
        norms_per_layer=2 if block == "serial" else 1,
    )
    settings = {"collectives": collectives, "unrolled": unrolled}
    plan = plan_of(model, shape, ffn_layout, attn_sharding, batch * chips, **settings)
    assert max(errors(plan)) < 1e-5


@pytest.mark.parametrize(
    ("changes", "shape", "ffn_layout", "attn_sharding", "batch_size", "says"),
    [
        ({"d_model": 36}, (2, 2, 2), "ws_2d", "heads", 8, "model.d_model=36"),
        ({"d_ff": 60}, (2, 2, 2), "ws_1d", "heads", 8, "model.d_ff=60"),
        ({}, (2, 2, 2), "wg_xy", "heads", 6, "batch_size=6"),
        ({}, (2, 2, 2), "ws_2d", "batch", 3, "batch_size=3"),
    ],
)
def test_a_mesh_that_cannot_carry_the_layout(changes, shape, ffn_layout, attn_sharding, batch_size, says):
    with pytest.raises(InvalidRequest, match=says):
        plan_of(small_model(**changes), shape, ffn_layout, attn_sharding, batch_size)


def test_auto_layouts():
    def chosen(model, shape, batch_size, decodes):
        return resolve_layout(model, shape, "auto", "auto", batch_size=batch_size, decodes=decodes)

    # F/E = 2: 2D from more than 4 chips.
    assert chosen(MODELS["palm"], (1, 2, 2), 8, True) == ("ws_1d", "batch")
    assert chosen(MODELS["palm"], (2, 2, 2), 8, True) == ("ws_2d", "batch")
    assert chosen(MODELS["palm"], (2, 2, 2), 8, False) == ("ws_2d", "heads")
    assert chosen(MODELS["palm"], (2, 2, 2), 3, True) == ("ws_2d", "heads")
    assert chosen(MODELS["gpt"], (2, 2, 2), 8, True) == ("ws_2d", "heads")
    assert chosen(MODELS["palm"], (1, 1, 1), 8, True) == ("ws_1d", "heads")
