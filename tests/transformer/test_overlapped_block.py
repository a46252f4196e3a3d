"""A parallel block whose collectives run under its matmuls: what it computes, in every layout and number format."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.plans import mesh_of, plan_of
from hlo_collectives import loop_collectives
from jax.sharding import PartitionSpec as P
from partitioned_case import TIME, errors

from engines.transformer.comm.collectives import MAX_TERMS, all_to_all_terms
from engines.transformer.params.fusion import input_parts, output_parts
from engines.transformer.params.memory_layout import LANES
from engines.transformer.partition.overlap import Overlap
from engines.transformer.programs import abstract_arguments, make_prefill

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

ONE_MATRIX = small_model(
    activation="gelu", position="none", num_kv_heads=4, attn_bias=True, ffn_bias=True, norm_bias=True
)
GROUPED = small_model(num_heads=8, num_kv_heads=2, norm="rmsnorm")


def overlapped(model, mesh_shape, ffn_layout="ws_2d", attn_sharding="batch", **changes):
    plan = plan_of(model, mesh_shape, ffn_layout, attn_sharding, collectives="latency", **changes)
    assert plan.overlap is Overlap.OVERLAPPED_BLOCK
    return plan


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize(
    ("model", "mesh_shape", "ffn_layout", "attn_sharding"),
    [
        (MODELS["palm"], (2, 2, 2), "ws_2d", "batch"),
        (MODELS["palm"], (4, 2, 1), "ws_2d", "heads"),
        (MODELS["palm"], (1, 1, 4), "ws_1d", "batch"),
        (MODELS["palm"], (8, 1, 1), "ws_2d", "batch"),  # a ring too long for an exchange of all terms
        (ONE_MATRIX, (2, 2, 2), "ws_2d", "batch"),
        (ONE_MATRIX, (2, 1, 2), "ws_1d", "heads"),
        (GROUPED, (4, 1, 2), "ws_2d", "batch"),
    ],
)
def test_it_equals_the_reference(model, mesh_shape, ffn_layout, attn_sharding):
    assert max(errors(overlapped(model, mesh_shape, ffn_layout, attn_sharding))) < 1e-5


@pytest.mark.parametrize("model", [MODELS["palm"], ONE_MATRIX])
def test_a_large_batch_has_two_output_matrices_and_equals_the_reference(model):
    plan = overlapped(model, (2, 1, 2), batch_size=LANES)
    assert list(output_parts(plan)) == ["attn", "ffn"]
    assert list(output_parts(replace(plan, batch_size=LANES // 2))) == ["fused"]
    assert max(errors(plan)) < 1e-5


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("batch_size", [8, LANES])
@pytest.mark.parametrize("act_dtype", ["float32", "int8"])
def test_with_int8_it_errs_as_plain_does(act_dtype, batch_size):
    formats = {"weight_dtype": "int8", "act_dtype": act_dtype, "kv_dtype": "float32", "batch_size": batch_size}
    plain = errors(plan_of(MODELS["palm"], (2, 1, 2), "ws_2d", "batch", **formats))
    ours = errors(overlapped(MODELS["palm"], (2, 1, 2), **formats))
    # Two output matrices have scales of their own, and an activation near the middle of two int8 may fall either way.
    same = act_dtype == "float32" and batch_size < LANES
    assert ours == pytest.approx(plain, abs=2e-6 if same else 0.3 * max(plain))


def test_every_input_matrix_is_one_of_its_own_and_none_is_cut():
    plan = overlapped(MODELS["palm"], (2, 2, 2))
    assert [list(dict(parts)) for parts in input_parts(plan).values()] == [["q", "k", "v"], ["gate"], ["up"]]
    assert plan.padded.kv_width == 1  # 8 columns of one head over 8 chips, not padded to blocks of a loop


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (MODELS["gpt"], {}),  # a serial block: attention's output is what the feed-forward waits for
        (MODELS["falcon"], {}),  # a norm for each half
        (MODELS["palm"], {"ffn_layout": "wg_x"}),
        (MODELS["palm"], {"collectives": "throughput"}),
        (MODELS["palm"], {"partitioner": "gspmd"}),
        (MODELS["palm"], {"decodes": False}),
        (MODELS["palm"], {"mesh_shape": (1, 1, 1), "attn_sharding": "heads"}),
    ],
)
def test_other_blocks_layouts_variants_and_prompts_alone_do_not(model, changes):
    plan = plan_of(model, (2, 2, 2), "ws_2d", "batch", collectives="latency")
    assert replace(plan, **changes).overlap is not Overlap.OVERLAPPED_BLOCK


def test_it_sends_each_collective_once_and_sums_by_all_to_all():
    plan = overlapped(MODELS["palm"], (2, 2, 2))
    mesh = mesh_of(plan.mesh_shape)
    lowered = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, TIME)["prefill"])
    found = loop_collectives(lowered.compile().as_text(), plan.mesh_shape)
    kinds = {}
    for (kind, axes, _), count in found.items():
        kinds[kind, axes] = kinds.get((kind, axes), 0) + count
    assert kinds["all-to-all", "x"] == 3  # columns of q, k and v, of gate, of up
    assert kinds["all-to-all", "xyz"] == 2  # attention's, there and back
    assert kinds["all-gather", "yz"] == 1  # one gather serves every input matrix
    assert kinds["all-gather", "x"] == 2  # the norm's sums of few tokens, and what both halves made
    assert ("all-gather", "xyz") not in kinds
    assert kinds["reduce-scatter", "yz"] == 1


@pytest.mark.parametrize("ring", [2, MAX_TERMS, 2 * MAX_TERMS])
def test_exchanged_terms_add_up_to_a_reduce_scatter(ring):
    values = np.random.default_rng(0).integers(-9, 9, (ring, ring, 3, 2)).astype(np.float32)

    def run(x):
        terms = all_to_all_terms(x[0], ("x",))
        assert len(terms) == (ring if ring <= MAX_TERMS else 1)
        return terms.sum(0)[None]

    mapped = jax.shard_map(run, mesh=mesh_of((ring, 1, 1)), in_specs=P("x"), out_specs=P("x"), check_vma=False)
    assert np.array_equal(jax.jit(mapped)(values), values.sum(0))
