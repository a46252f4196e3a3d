from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest
from builders.models import MODELS
from builders.plans import mesh_of, plan_of
from hlo_collectives import loop_collectives
from jax import lax
from jax.sharding import PartitionSpec as P
from partitioned_case import TIME, errors

from engines.transformer.comm.ring import ring_of
from engines.transformer.comm.volume import layer_transfers
from engines.transformer.programs import abstract_arguments, make_prefill

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

VARIANTS = ["oneway", "throughput", "latency"]


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("collectives", VARIANTS)
@pytest.mark.parametrize(
    ("model", "ffn_layout", "attn_sharding"),
    [
        ("palm", "ws_1d", "batch"),
        ("gpt", "ws_2d", "heads"),
        ("palm", "wg_x", "batch"),
        ("gpt", "wg_xy", "batch"),
        ("palm", "wg_xyz", "heads"),
    ],
)
def test_looped_equals_the_reference(model, ffn_layout, attn_sharding, collectives):
    plan = plan_of(MODELS[model], (2, 2, 2), ffn_layout, attn_sharding, collectives=collectives)
    assert max(errors(plan)) < 1e-5


@pytest.mark.parametrize("collectives", VARIANTS)
def test_looped_with_int8_errs_as_plain_does(collectives):
    formats = {"weight_dtype": "int8", "act_dtype": "float32", "kv_dtype": "float32"}
    plain = errors(plan_of(MODELS["palm"], (1, 2, 2), "ws_2d", "heads", **formats))
    looped = errors(plan_of(MODELS["palm"], (1, 2, 2), "ws_2d", "heads", collectives=collectives, **formats))
    assert looped == pytest.approx(plain, abs=2e-6)


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("collectives", VARIANTS)
@pytest.mark.parametrize(("shape", "axes"), [((1, 1, 3), ("z",)), ((1, 2, 2), ("z", "y")), ((5, 1, 1), ("x",))])
@pytest.mark.parametrize("shard", [1, 3, 4])
def test_shards_arrive_and_sums_leave_on_rings_of_any_size(shape, axes, shard, collectives):
    plan = replace(plan_of(MODELS["palm"], collectives=collectives), mesh_shape=shape)
    ring = int(np.prod(shape))
    values = np.arange(2 * ring * shard, dtype=np.float32).reshape(2, ring * shard)
    # A different matrix on every chip: column c of chip i is 1000·i + c.
    own = (1000 * np.arange(ring)[:, None] + np.arange(ring * shard)).astype(np.float32).reshape(ring, 1, -1)

    def run(x, terms):
        me = lax.axis_index(axes)
        whole = jax.numpy.zeros((2, ring * shard))
        for part in ring_of(plan).all_gather(plan, x, axes, 1):
            start = (me + part.block) % ring * shard + part.offset
            whole = lax.dynamic_update_slice_in_dim(whole, part.values, start, 1)
        mine = jax.numpy.roll(terms[0], -me * shard, 1)
        total = ring_of(plan).reduce_scatter(plan, lambda columns: mine[..., columns], axes, ring * shard, np.float32)
        return whole[None], total

    split = P(None, axes)
    mapped = jax.shard_map(
        run, mesh=mesh_of(shape), in_specs=(split, P(axes)), out_specs=(P(axes), split), check_vma=False
    )
    gathered, scattered = jax.jit(mapped)(values, own)
    assert all(np.array_equal(each, values) for each in gathered)
    assert np.array_equal(scattered[0], own.sum(axis=0)[0])


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("collectives", VARIANTS)
@pytest.mark.parametrize(
    ("ffn_layout", "mesh_shape"),
    [("ws_1d", (1, 1, 8)), ("ws_2d", (2, 2, 2)), ("ws_2d", (2, 4, 1)), ("wg_xyz", (2, 2, 2))],
)
def test_looped_moves_no_more_than_plain(ffn_layout, mesh_shape, collectives):
    plan = plan_of(MODELS["gpt"], mesh_shape, ffn_layout, "heads", collectives=collectives)
    mesh = mesh_of(plan.mesh_shape)
    lowered = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, TIME)["prefill"])
    found = loop_collectives(lowered.compile().as_text(), plan.mesh_shape)
    ways = ("all-gather", "reduce-scatter", "collective-permute")

    def on_links(kind, axes, size):
        return size if kind == "collective-permute" else size * (1 - 1 / plan.axes.size(tuple(axes)))

    closed = Counter((each.kind, each.axes, each.payload_bytes) for each in layer_transfers(plan, TIME))
    sent, plain = (
        sum(on_links(*key) * count for key, count in counter.items() if key[0] in ways) for counter in (found, closed)
    )
    assert sent == pytest.approx(plain, rel=1e-12)
    assert any(kind == "collective-permute" for kind, _, _ in found)
    others = [{key: count for key, count in each.items() if key[0] not in ways} for each in (found, closed)]
    assert others[0] == others[1]
