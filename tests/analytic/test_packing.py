"""Packed prompts in the closed forms, and Megatron's keys."""

import dataclasses

import pytest
from builders.points import point as build_point
from hypothesis import given
from hypothesis import strategies as st

from engines.analytic.attention import seen_in_decode, seen_in_prefill
from engines.analytic.engine import AnalyticEngine
from engines.analytic.gpu_nodes import micro_batch
from engines.analytic.grid import grid_of
from engines.weights.lengths import moments


def asked(**changes):
    values = {"model": "palm-62b", "hw": "tpu-v4", "engine": "analytic", "num_chips": 16, "phase": "prefill"}
    return build_point(**{**values, "batch_size": 32, "input_len": 512, "output_len": 16, **changes})


def on_gpus(**changes):
    values = {"model": "gpt-175b", "hw": "a100-80gb", "tensor_parallel": 8, "pipeline_parallel": 2}
    return asked(**{**values, "weight_dtype": "float16", "input_len": 128, "output_len": 8, **changes})


def answer(point):
    (found,) = AnalyticEngine().estimate([point])
    assert found.status == "ok", found.error
    return found


def test_packed_tokens_and_pairs_are_the_means():
    grid = grid_of([asked(lengths="uniform", padding="packed"), asked(lengths="uniform")])
    # 1 … 512: (512 + 1)/2 tokens, and E[l²]/E[l] = (2·512 + 1)/3 keys a token; padded prompts have all 512.
    assert grid.input_len.tolist() == [256.5, 512]
    assert seen_in_prefill(grid).tolist() == [pytest.approx(1025 / 3), 512]
    assert seen_in_decode(grid_of([asked(phase="decode", lengths="uniform", padding="packed")])) == 256.5 + 17 / 2


@given(
    law=st.sampled_from(["uniform", "lognormal", "trace"]),
    batch=st.sampled_from([1, 8, 64]),
    phase=st.sampled_from(["prefill", "decode", "generate"]),
    gpu=st.booleans(),
)
def test_packing_is_never_slower_and_counts_the_same_tokens(law, batch, phase, gpu):
    # In one layout: another may be chosen for fewer tokens, with another part of the cache on each chip.
    make, layout = (on_gpus, {}) if gpu else (asked, {"ffn_layout": "ws_2d", "attn_sharding": "heads"})
    padded, packed = (
        answer(make(lengths=law, padding=each, batch_size=batch, phase=phase, **layout))
        for each in ("padded", "packed")
    )
    assert packed.latency_s <= padded.latency_s
    assert packed.facts.kv_cache_bytes <= padded.facts.kv_cache_bytes
    assert padded.facts.processed_tokens == packed.facts.processed_tokens
    length = make().input_len
    assert packed.facts.cached_tokens == round(batch * moments(law, length).mean)


def test_padded_prompts_take_what_equal_ones_do():
    assert answer(asked(lengths="trace")).latency_s == answer(asked()).latency_s


def test_micro_batches_are_those_asked_for():
    grid = grid_of([on_gpus(batch_size=12), on_gpus(batch_size=12, micro_batches=3)])
    assert micro_batch(grid, grid.input_len).tolist() == [6, 4]


def test_split_norms_send_the_same_bytes_and_hold_less():
    plain, split = (answer(on_gpus(sequence_parallel=each)) for each in ("none", "norms"))
    assert split.facts.memory_s < plain.facts.memory_s
    assert split.facts.activations_bytes < plain.facts.activations_bytes
    assert split.facts.compute_s == plain.facts.compute_s
    # Two starts for one, of as many all-reduces: a serial block has two a layer.
    grids = [grid_of([on_gpus(sequence_parallel=each)]) for each in ("none", "norms")]
    one = float((grids[0].collective_s + grids[0].hop_s * 2 * 7)[0])
    turns = on_gpus().batch_size / float(micro_batch(grids[0], grids[0].input_len)[0]) + 1
    more = split.facts.communication_s - plain.facts.communication_s
    assert more == pytest.approx(2 * 48 * one * turns)


def test_an_engine_that_reads_none_of_it_refuses():
    from engines.core.errors import Unsupported
    from engines.core.extension import check_extensions

    for change in ({"lengths": "uniform"}, {"sequence_parallel": "norms"}):
        with pytest.raises(Unsupported, match=next(iter(change))):
            check_extensions(dataclasses.replace(on_gpus(), **change), "vllm")
