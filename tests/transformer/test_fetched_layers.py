"""A program that fetches each layer's matrices from host memory computes what one does that has them."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from bench.sweep.catalog import load_model
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.params.parameters import abstract_parameters
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_prefill

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
