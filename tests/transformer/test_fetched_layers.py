"""A program that fetches each layer's matrices from host memory computes what one does that has them."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from bench.sweep.catalog import load_model
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.params.parameters import abstract_parameters
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_decode, make_prefill

pytestmark = pytest.mark.usefixtures("plainly_compiled")


@pytest.mark.parametrize("unrolled", [False, True])
def test_fetched_layers_give_the_same_logits(unrolled):
    mesh = jax.make_mesh((2, 1, 1), ("x", "y", "z"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    model = replace(load_model("tiny"), num_layers=2)
    plan = Plan(
        model=model,
        mesh_shape=(2, 1, 1),
        ffn_layout="ws_1d",
        attn_sharding="heads",
        batch_size=2,
        cache_len=4,
        unrolled=unrolled,
    )
    tokens = np.arange(8, dtype=np.int32).reshape(2, 4)
    parameters = load_parameters(plan, mesh, 0)
    _, logits, _ = make_prefill(plan, mesh)(parameters, make_cache(plan, mesh), tokens)
    offloaded = replace(plan, offloads=True)
    described = abstract_parameters(offloaded, mesh)
    placed = jax.tree.map(lambda array, to: jax.device_put(array, to.sharding), parameters, described)
    kinds = {each.sharding.memory_kind for each in jax.tree.leaves(placed.layers)}
    assert kinds == {"device", "pinned_host"}
    _, fetched, _ = make_prefill(offloaded, mesh)(placed, make_cache(plan, mesh), tokens)
    assert np.allclose(np.asarray(fetched), np.asarray(logits), rtol=0, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("kv_dtype", ["float32", "int8"])
@pytest.mark.thorough(every=2)
def test_a_cache_that_comes_layer_by_layer_holds_the_same_and_gives_the_same_logits(kv_dtype):
    mesh = jax.make_mesh((2, 1, 1), ("x", "y", "z"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    model = replace(load_model("tiny"), num_layers=2)
    sizes = {"batch_size": 2, "cache_len": 6, "kv_dtype": kv_dtype}
    plan = Plan(model=model, mesh_shape=(2, 1, 1), ffn_layout="ws_1d", attn_sharding="batch", **sizes)
    tokens = np.arange(8, dtype=np.int32).reshape(2, 4)
    parameters = load_parameters(plan, mesh, 0)
    found = []
    for each in (plan, replace(plan, offloads_kv=True)):
        cache = make_cache(each, mesh)
        first, _, cache = make_prefill(each, mesh)(parameters, cache, tokens)
        ids, logits, cache = make_decode(each, mesh, 2)(parameters, cache, first, np.int32(4))
        found.append((ids, logits, cache))
    (ids, logits, (held,)), (same, close, (waiting,)) = found
    assert {each.sharding.memory_kind for each in waiting.values()} == {"pinned_host"}
    assert np.array_equal(ids, same)
    assert np.allclose(logits, close, rtol=0, atol=1e-5, equal_nan=True)
    for name, array in held.items():
        # [layers, batch, slots, positions, …] → [layers · positions, batch, slots, …].
        by_position = np.moveaxis(np.asarray(array), 3, 1)
        assert np.allclose(by_position.reshape(-1, *by_position.shape[2:]), np.asarray(waiting[name]), atol=1e-5)
