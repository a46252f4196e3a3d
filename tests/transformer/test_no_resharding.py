"""Prefill with gathered weights and decode with stationary ones, on the same arrays where they lie."""

import jax
import numpy as np
import pytest
from builders.models import small_model
from builders.plans import mesh_of, plan_of
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from partitioned_case import STEPS, TIME, relative_error

from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.programs import abstract_arguments, load_parameters, make_decode, make_prefill
from engines.weights.random import prompt

pytestmark = pytest.mark.usefixtures("plainly_compiled")

MESH = (2, 2, 2)
MODEL = small_model()


def inputs(plan, program):
    """Where a compiled program of ``plan`` wants each part of its weights and of its cache."""
    arrays = jax.tree.leaves(abstract_arguments(plan, mesh_of(MESH), TIME)["decode"][:2])
    wanted = jax.tree.leaves(program.input_shardings[0][:2])
    return [each.devices_indices_map(array.shape) for array, each in zip(arrays, wanted, strict=True)]


def programs(reading, writing):
    """Prefill of one plan and decode of another, each compiled for arrays as its own plan lays them."""
    mesh = mesh_of(MESH)
    prefill = make_prefill(reading, mesh).lower(*abstract_arguments(reading, mesh, TIME)["prefill"]).compile()
    decode = make_decode(writing, mesh, STEPS).lower(*abstract_arguments(writing, mesh, TIME)["decode"]).compile()
    return prefill, decode


def buffers(arrays):
    """Where each device's part of every array lies."""
    return [part.data.unsafe_buffer_pointer() for each in jax.tree.leaves(arrays) for part in each.addressable_shards]


def everywhere(value):
    return jax.device_put(value, NamedSharding(mesh_of(MESH), P()))


@pytest.mark.parametrize("gathered", ["wg_x", "wg_xy", "wg_xyz"])
def test_nothing_is_transferred_between_prefill_and_decode(gathered):
    reading, writing = (plan_of(MODEL, MESH, name, "batch") for name in (gathered, "ws_2d"))
    weights, cache = load_parameters(reading, mesh_of(MESH), 0), make_cache(reading, mesh_of(MESH))
    ids = prompt(MODEL, 8, TIME, 0)
    tokens, position = everywhere(ids), everywhere(np.int32(TIME))
    prefill, decode = programs(reading, writing)
    assert inputs(reading, prefill) == inputs(writing, decode)
    held = buffers(weights)
    with jax.transfer_guard("disallow"):
        first, _, cache = prefill(weights, cache, tokens)
        cached = buffers(cache)
        generated, scores, cache = decode(weights, cache, first, position)
    # Decode read what prefill had read, and wrote into the cache that prefill had filled.
    assert buffers(weights) == held
    assert buffers(cache) == cached
    fed = np.concatenate([ids, np.asarray(first)[:, None], np.asarray(generated).T[:, :-1]], axis=1)
    output = np.asarray(scores)[..., : MODEL.vocab_size]
    assert relative_error(MODEL, fed, tuple(range(TIME, TIME + STEPS)), output) < 1e-5


def test_what_would_have_to_move_is_seen():
    flat, stationary = (plan_of(MODEL, MESH, name, "batch") for name in ("ws_1d", "ws_2d"))
    prefill, decode = programs(flat, stationary)
    assert inputs(flat, prefill) != inputs(stationary, decode)
    weights, cache = load_parameters(flat, mesh_of(MESH), 0), make_cache(stationary, mesh_of(MESH))
    first, position = everywhere(prompt(MODEL, 8, 1, 0)[:, 0]), everywhere(np.int32(0))
    with pytest.raises(ValueError, match="sharding"):
        decode(weights, cache, first, position)
    stored = load_parameters(stationary, mesh_of(MESH), 0)
    with jax.transfer_guard("disallow"), pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device"):
        decode(stored, cache, first, np.int32(0))
