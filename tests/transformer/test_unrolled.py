"""Layers with arrays of their own, instead of a loop over stacks."""

import jax
import numpy as np
import pytest
from builders.models import MODELS
from builders.plans import mesh_of, plan_of
from hlo_collectives import loop_collectives
from partitioned_case import TIME, errors

from engines.transformer.comm.volume import layer_transfers
from engines.transformer.options import PrefillOptions
from engines.transformer.params.parameters import make_parameters
from engines.transformer.programs import abstract_arguments, make_decode, make_prefill

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize(
    ("model", "ffn_layout", "attn_sharding", "settings"),
    [
        ("palm", "ws_2d", "batch", {}),
        ("palm", "ws_2d", "batch", {"collectives": "latency"}),
        ("gpt", "wg_xy", "batch", {"collectives": "throughput"}),
        ("llama", "ws_1d", "heads", {"collectives": "all_reduce"}),
        ("llama", "ws_1d", "heads", {"collectives": "exchange", "wrap": (True, False, True)}),
        ("llama", "ws_2d", "heads", {"prefill": PrefillOptions(chunk=2)}),
        ("llama", "ws_2d", "batch", {"partitioner": "gspmd"}),
    ],
)
def test_equals_the_reference(model, ffn_layout, attn_sharding, settings):
    plan = plan_of(MODELS[model], (2, 2, 2), ffn_layout, attn_sharding, unrolled=True, **settings)
    assert max(errors(plan)) < 1e-5


def test_a_quantised_cache_and_weights():
    formats = {"weight_dtype": "int8", "act_dtype": "float32", "kv_dtype": "int8"}
    looped, unrolled = (
        errors(plan_of(MODELS["llama"], (2, 2, 2), "ws_1d", "heads", unrolled=each, **formats))
        for each in (False, True)
    )
    assert looped == pytest.approx(unrolled, abs=1e-6)


def test_every_layer_holds_its_part_of_the_stack():
    whole, apart = (
        make_parameters(plan_of(MODELS["gpt"], (1, 1, 1), unrolled=each), mesh_of((1, 1, 1)), 0).layers
        for each in (False, True)
    )
    (whole,) = whole
    assert len(apart) == MODELS["gpt"].num_layers
    for number, one in enumerate(apart):
        same = jax.tree.map(
            lambda stack, mine, at=number: np.array_equal(np.ravel(stack[at]), np.ravel(mine)), whole, one
        )
        assert jax.tree.all(same)


def test_the_program_has_no_loop_over_layers():
    for unrolled in (False, True):
        plan, mesh = plan_of(MODELS["gpt"], (1, 1, 1), unrolled=unrolled), mesh_of((1, 1, 1))
        text = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, TIME)["prefill"]).compile().as_text()
        assert (" while(" in text) is not unrolled


@pytest.mark.parametrize("ffn_layout", ["ws_1d", "ws_2d", "wg_x"])
def test_a_whole_residual_needs_one_all_reduce_for_a_projection(ffn_layout):
    plan = plan_of(MODELS["gpt"], (2, 2, 2), ffn_layout, "heads", collectives="all_reduce", cache_len=TIME)
    mesh = mesh_of(plan.mesh_shape)
    text = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, TIME)["prefill"]).compile().as_text()
    closed = [(each.kind, each.axes, each.payload_bytes) for each in layer_transfers(plan, TIME)]
    assert sorted(loop_collectives(text, plan.mesh_shape).elements()) == sorted(closed)
    if ffn_layout == "ws_1d":
        # Attention and feed-forward: t·E floats each, and nothing else.
        assert closed == [("all-reduce", "xyz", 4 * 8 * TIME * plan.model.d_model)] * 2


def test_a_donated_cache_comes_out_as_it_went_in():
    plan, mesh = plan_of(MODELS["gpt"], (2, 2, 2), unrolled=True), mesh_of((2, 2, 2))
    arguments = abstract_arguments(plan, mesh, TIME)["decode"]
    compiled = make_decode(plan, mesh, 1).lower(*arguments).compile()
    cache = sum(each.size * each.dtype.itemsize for each in jax.tree.leaves(arguments[1])) / 8
    assert compiled.memory_analysis().alias_size_in_bytes == cache
