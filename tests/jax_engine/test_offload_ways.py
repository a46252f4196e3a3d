"""Layers that come one by one, with their caches, go with every way to read a prompt and to decide tokens."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from builders.points import point as build_point

from bench.sweep.catalog import load_model
from engines.core.errors import InvalidRequest, Unsupported
from engines.jax.engine import JaxEngine
from engines.jax.offload.store import layer_payload_bytes
from engines.jax.offload.written import All, InARow, OfRows, written_by
from engines.transformer.partition.resolve import plan_of

pytestmark = pytest.mark.usefixtures("plainly_prepared", "small_peaks")

TINY = replace(load_model("tiny"), name="tiny-3", num_layers=3, d_model=32, d_ff=64, head_dim=8, vocab_size=64)
SMALL = replace(TINY, name="tiny-1", num_layers=1)
LAYERS, BATCH, TIME, STEPS = 3, 2, 5, 6
BEHIND_A_PREFIX = (("shared_prefix", 3), ("prefill_chunk", 2))
BEHIND_A_PREFIX = (("shared_prefix", 3), ("prefill_chunk", 2))
HOST = {"offload": "host", "offload_kv": "host"}


def asked(**keys):
    own = {"num_chips": 1, "batch_size": BATCH, "input_len": TIME, "output_len": STEPS, "weight_dtype": "float32"}
    return build_point(model=TINY, hw="cpu", engine="jax", **{"phase": "generate", **own, **keys})


@functools.cache
def ran(settings=(), **keys):
    """(tokens, logits, facts) of a verified point whose program is the one that was foretold."""
    engine, point = JaxEngine(**dict(settings)), asked(**keys)
    program = engine.prepare(point)
    try:
        assert program.verify().ok
        facts = program.facts()
        assert facts.program_id == engine.program_id(point)
        return *(np.asarray(each) for each in program.decoded), facts
    finally:
        program.close()


def compared(settings, waits, keys):
    """Facts of the point with its arrays where ``waits`` says, which gives what it gives with them on the devices."""
    tokens, logits, _ = ran(settings, **keys)
    found, scores, facts = ran(settings, **waits, **keys)
    assert np.array_equal(found, tokens)
    finite = np.isfinite(logits)
    assert np.abs(scores[finite] - logits[finite]).max() <= 1e-5 * np.abs(logits[finite]).max()
    return facts


def cache_bytes(point):
    """Of a layer's cache over all chips, in float32: keys and values of every position of the one head."""
    return 2 * BATCH * (point.input_len + point.output_len + (point.draft_len or 0)) * TINY.head_dim * 4


def test_a_cache_in_host_memory_comes_with_every_layer_and_what_a_step_wrote_goes_back():
    facts = compared((), {"offload_kv": "host"}, {})
    decode, prefill = (facts.details["offload"][stage] for stage in ("decode", "prefill"))
    one, passes = cache_bytes(asked()), STEPS * LAYERS
    assert decode["cache_copy_bytes"] == decode["copy_bytes"] == passes * one
    assert decode["write_bytes"] == passes * one / (TIME + STEPS)
    # A whole prompt reads no cache; what it wrote goes back.
    assert prefill["cache_copy_bytes"] == prefill["copy_bytes"] == 0
    assert prefill["write_bytes"] == LAYERS * one * TIME / (TIME + STEPS)
    assert decode["fetches"] == passes
    assert 0 < decode["fetches_overlapped"] < passes
    assert facts.kv_cache_bytes == 2 * one


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize(
    ("settings", "waits", "keys"),
    [
        ((), HOST, {"num_chips": 2, "attn_sharding": "batch", "kv_dtype": "int8", "act_dtype": "float32"}),
        ((), {"offload": "nvme"}, {"pruning": "columns:0.5+2:4"}),
        ((("prefill_chunk", 2),), HOST, {"num_chips": 2, "ffn_layout": "ws_1d"}),
        ((), HOST, {"lengths": "uniform"}),
        ((), HOST, {"lengths": "uniform", "padding": "packed", "num_chips": 2, "attn_sharding": "batch"}),
        ((), {"offload": "nvme"}, {"weight_dtype": "int4", "act_dtype": "float32", "output_len": 2}),
        ((), {"offload": "host"}, {"weight_dtype": "mxfp4", "act_dtype": "float32", "output_len": 2}),
        ((), HOST, {"num_chips": 2, "partitioner": "gspmd", "output_len": 2}),
        (BEHIND_A_PREFIX, HOST, {"num_chips": 2, "attn_sharding": "batch", "input_len": 6}),
    ],
    ids=["quantized cache", "pruning", "chunks", "padded", "packed", "int4", "mxfp4", "compiler", "prefix"],
)
def test_layers_that_come_one_by_one_give_what_those_on_the_devices_give(settings, waits, keys):
    facts = compared(settings, waits, keys)
    run = facts.details["offload"]["decode"]
    point = asked(**keys)
    assert run["fetches"] == point.output_len * LAYERS
    if keys.get("num_chips", 1) == 1 and "pruning" not in keys:
        payloads = layer_payload_bytes(replace(plan_of(point), unrolled=True))
        assert run["copy_bytes"] - run.get("cache_copy_bytes", 0) == point.output_len * sum(payloads)


def test_chunks_fetch_every_layer_once_each():
    _, _, facts = ran((("prefill_chunk", 2),), num_chips=2, ffn_layout="ws_1d", **HOST)
    assert facts.details["offload"]["prefill"]["fetches"] == 3 * LAYERS  # 1 + 2 + 2 tokens


def test_a_shared_prefix_is_a_pass_of_one_sequence_and_goes_back_once():
    _, _, facts = ran((("shared_prefix", 3),), **HOST)
    prefill, decode = (facts.details["offload"][stage] for stage in ("prefill", "decode"))
    position = 2 * TINY.head_dim * 4
    assert prefill["fetches"] == 2 * LAYERS
    # The whole of each layer's cache: the prefix once, and of every sequence all positions behind it.
    assert prefill["write_bytes"] == LAYERS * (3 + BATCH * (TIME + STEPS - 3)) * position
    assert prefill["cache_copy_bytes"] == 0
    assert decode["write_bytes"] == STEPS * LAYERS * BATCH * position


@pytest.mark.parametrize("waits", [HOST, {"offload": "nvme"}, {"offload_kv": "host"}], ids=["both", "weights", "cache"])
def test_first_layers_that_propose_stay_on_the_device_and_the_others_come_once_a_turn(waits):
    keys = {"speculative": "self", "draft_layers": 1, "draft_len": 2}
    facts = compared((), waits, keys)
    assert np.array_equal(ran((), **waits, **keys)[0], ran()[0]), "the output is the model's own"
    run, turns = facts.details["offload"]["decode"], facts.details["turns"]
    # Of a turn that does not come two layers may be on the device, and two more have been read from a file.
    assert turns * (LAYERS - 1) <= run["fetches"] <= turns * (LAYERS - 1) + (4 if waits == {"offload": "nvme"} else 2)
    if "offload_kv" in waits:
        assert run["write_bytes"] == turns * (LAYERS - 1) * 3 * BATCH * 2 * TINY.head_dim * 4


@pytest.mark.parametrize("way", ["draft", "ngram"])
def test_a_turn_of_speculation_is_one_pass_over_the_layers_that_come(way):
    keys = {"speculative": way, "draft_len": 2, **({"draft_model": SMALL} if way == "draft" else {})}
    facts = compared((), HOST, keys)
    tokens, _, _ = ran()
    assert np.array_equal(ran((), **HOST, **keys)[0], tokens), "the output is the model's own"
    run, turns = facts.details["offload"]["decode"], facts.details["turns"]
    # The first layers of a turn that does not come may be on their way: two are on the device at most.
    assert turns * LAYERS <= run["fetches"] <= turns * LAYERS + 2
    # Each writes the token that it begins with and those proposed.
    assert run["write_bytes"] == turns * LAYERS * 3 * BATCH * 2 * TINY.head_dim * 4
    assert facts.details["kept_tokens"] <= BATCH * 2 * turns


def never_and_ever():
    """An id that plain decoding never makes, and its first token."""
    tokens, _, _ = ran()
    return next(each for each in range(TINY.vocab_size) if each not in tokens), int(tokens[0, 0])


@pytest.mark.parametrize("keys", [HOST, {**HOST, "speculative": "ngram", "draft_len": 2}], ids=["steps", "turns"])
def test_a_stop_token_that_cuts_nothing_changes_nothing_and_one_that_cuts_makes_no_row(keys):
    never, early = never_and_ever()
    tokens, _, facts = ran((("stop_token", never),), **keys)
    assert np.array_equal(tokens, ran()[0])
    assert facts.details["generated_tokens"] == tokens.size
    with pytest.raises(InvalidRequest, match=rf"engine.stop_token={early}: stopped early: \d+ of {tokens.size} tokens"):
        ran((("stop_token", early),), **keys)


def test_one_layer_reads_in_the_next_step_what_it_wrote_in_this():
    (tokens, _, _), (found, _, facts) = (run_small(**keys) for keys in ({}, {"offload_kv": "host"}))
    assert np.array_equal(found, tokens)
    assert facts.details["offload"]["decode"]["fetches_overlapped"] == 0


def run_small(**keys):
    program = JaxEngine().prepare(replace(asked(**keys), model=SMALL))
    try:
        assert program.verify().ok
        return *(np.asarray(each) for each in program.decoded), program.facts()
    finally:
        program.close()


def test_what_a_pass_writes_of_a_cache_is_all_that_goes_back():
    plan = replace(plan_of(replace(asked(), model=replace(TINY, attention_window=4, global_every=3))), unrolled=True)
    local = next(each.kind for each in plan.stacks if each.kind.window)
    whole = next(each.kind for each in plan.stacks if not each.kind.window)
    starts = np.array([6, 2], np.int32)
    assert written_by(plan, local, 6, 1) == InARow(2, 1)  # in a window of 4, position 6 has slot 2
    assert written_by(plan, local, 2, 3) == written_by(plan, local, starts, 1) == All()
    assert written_by(plan, whole, 6, 3) == InARow(6, 3)
    assert written_by(plan, whole, starts, 3) == OfRows((6, 2), 3)
    assert written_by(plan, whole, None, 1) == All()
    behind = replace(plan, prefill=replace(plan.prefill, prefix=2))
    assert written_by(behind, whole, 6, 3) == InARow(4, 3)  # a cache begins behind the prefix


@pytest.mark.parametrize(
    ("keys", "settings", "named"),
    [
        ({"exit_threshold": 0.5}, {}, "exit_threshold=0.5: .*all of them come"),
        ({"pipeline_parallel": 2, "num_chips": 2}, {}, "pipeline_parallel=2: .*has all of its layers"),
        ({}, {"unroll_layers": False}, "engine.unroll_layers=false"),
    ],
)
@pytest.mark.parametrize("waits", [{"offload": "host"}, {"offload_kv": "host"}], ids=["weights", "cache"])
def test_what_does_not_run_layer_by_layer_is_refused_by_its_key(waits, keys, settings, named):
    with pytest.raises(Unsupported, match=named):
        JaxEngine(**settings).program_id(asked(**waits, **keys))
