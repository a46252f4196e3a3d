"""Attention over the positions of a sequence: prompts in a ring, steps merged from partial softmaxes."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.plans import mesh_of, plan_of
from hlo_collectives import LONG_TIME, layer_collectives, long_sequence
from hypothesis import HealthCheck, given, settings
from partitioned_case import errors

from engines.core.errors import InvalidRequest
from engines.transformer.comm.volume import layer_transfers
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.layers.mask import QueryBlock
from engines.transformer.layers.sequence_attention import snake
from engines.transformer.layers.stripes import Striped
from engines.transformer.options import PrefillOptions

CHIPS = (2, 2, 2)
LENGTH = LONG_TIME


def error(model, ffn_layout="ws_2d", batch_size=1, shape=CHIPS, **rest) -> float:
    plan = plan_of(model, shape, ffn_layout, "sequence", batch_size, cache_len=LENGTH + 3, **rest)
    assert plan.axes.positions
    return max(errors(plan, LENGTH))


@pytest.mark.thorough(every=2)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "ffn_layout", "batch_size"),
    [
        ("palm", "ws_1d", 1),
        ("palm", "ws_2d", 3),
        ("llama", "ws_1d", 2),
        ("llama", "ws_2d", 1),
        ("llama", "wg_x", 2),
        ("deepseek", "ws_2d", 1),
        ("deepseek lite", "ws_1d", 1),
        ("deepseek", "wg_xy", 4),
    ],
)
def test_every_layout_equals_the_reference(model, ffn_layout, batch_size):
    assert error(model, ffn_layout, batch_size) < 1e-5


@pytest.mark.thorough(every=2)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("palm", {"collectives": "latency"}),
        ("llama", {"collectives": "throughput"}),
        ("llama", {"collectives": "all_reduce", "unrolled": True, "ffn_layout": "ws_1d"}),
        ("llama", {"prefill": PrefillOptions(attention="blockwise", block=2)}),
        ("deepseek", {"latent_attention": "expanded"}),
        ("deepseek", {"latent_attention": "absorbed"}),
    ],
)
def test_other_ways_to_run(model, settings):
    assert error(model, **settings) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("model", ["llama", "deepseek"])
def test_chunks_of_a_prompt(model):
    # 12 tokens in chunks of 8: 4 and 8, both multiples of the 4 (or, of latents, of the 4) chips.
    plan = plan_of(model, (1, 2, 2), "ws_2d", "sequence", 1, cache_len=16, prefill=PrefillOptions(chunk=8))
    assert max(errors(plan, 12)) < 1e-5


LLAMA, WINDOWED = MODELS["llama"], {"attention_window": 9}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "time", "chunk"),
    [
        ({**WINDOWED, "global_every": 2, "attention_sinks": True, "attn_softcap": 3.0, "qk_norm": True}, 21, None),
        ({"attention_window": 8, "window_kind": "chunked"}, 21, None),
        (WINDOWED, 24, 8),
    ],
)
@pytest.mark.thorough(every=2)
def test_windows_whose_caches_roll_on_every_chip(changes, time, chunk):
    # Three windows of decoding: past every place of the rolling caches.
    steps, prefill = 3 * changes["attention_window"], PrefillOptions(chunk=chunk)
    model = replace(LLAMA, **changes)
    plan = plan_of(model, (1, 2, 2), "ws_2d", "sequence", 1, cache_len=time + steps, prefill=prefill)
    assert max(errors(plan, time, steps)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        replace(MODELS["deepseek"], attention_window=6),
        replace(MODELS["palm"], position="alibi", attention_window=7),
    ],
    ids=["latents", "slopes of distance"],
)
def test_other_windows(model):
    plan = plan_of(model, (1, 2, 2), "ws_2d", "sequence", 1, cache_len=LENGTH + 9)
    assert max(errors(plan, LENGTH, 9)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("model", ["palm", "deepseek"])
def test_a_quantized_cache_errs_by_the_same_rounding(model):
    found = error(model, kv_dtype="int8")
    assert 1e-4 < found < 0.03


@pytest.mark.slow
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    shape=st.sampled_from([(1, 1, 2), (2, 1, 3), (2, 2, 2)]),
    kv_heads=st.sampled_from([1, 2, 3]),
    group=st.integers(1, 3),
    time=st.integers(1, 11),
    batch=st.integers(1, 2),
    ffn_layout=st.sampled_from(["ws_1d", "ws_2d"]),
)
def test_any_heads_and_lengths(shape, kv_heads, group, time, batch, ffn_layout):
    chips = int(np.prod(shape))
    model = small_model(
        num_layers=1, d_model=12 * chips, d_ff=2 * chips, num_heads=kv_heads * group, num_kv_heads=kv_heads, head_dim=4
    )
    if kv_heads % chips == 0:
        return  # the heads take every axis
    plan = plan_of(model, shape, ffn_layout, "sequence", batch, cache_len=time + 3)
    assert max(errors(plan, time)) < 1e-5


@pytest.mark.parametrize(
    ("model", "heads", "positions"),
    [("palm", (), ("z", "y", "x")), ("llama", ("z",), ("y", "x")), ("deepseek", (), ("z", "y", "x"))],
)
def test_heads_take_the_axes_that_leave_each_chip_one(model, heads, positions):
    axes = plan_of(model, CHIPS, "ws_2d", "sequence", 1).axes
    assert (axes.head, axes.positions) == (heads, positions)


def test_a_chip_caches_its_share():
    def cached(model, attn_sharding):
        plan = plan_of(model, CHIPS, "ws_2d", attn_sharding, 1, cache_len=64)
        arrays = make_cache(plan, mesh_of(CHIPS))[0].values()
        return sum(each.addressable_shards[0].data.nbytes for each in arrays)

    # One key/value head: over heads every chip holds it whole.
    assert cached("palm", "heads") == 8 * cached("palm", "sequence")
    assert cached("deepseek", "replicated") == 8 * cached("deepseek", "sequence")


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple))
def test_neighbours_of_the_ring_are_one_hop_apart(sizes):
    ring = snake(sizes)
    assert sorted(ring) == list(range(int(np.prod(sizes))))
    places = np.stack(np.unravel_index(ring, sizes), axis=1)
    assert (np.abs(np.diff(places, axis=0)).sum(axis=1) == 1).all()
    if sizes[0] % 2 == 0:
        last = (places[-1] - places[0]) % sizes
        assert np.minimum(last, np.array(sizes) - last).sum() == 1


@settings(max_examples=30, deadline=None)
@given(
    chips=st.integers(1, 4),
    time=st.integers(1, 5),
    block=st.integers(1, 3),
    chip=st.integers(0, 3),
    start=st.integers(0, 9),
)
def test_stripes_see_what_stands_before_and_visit_all_of_it(chips, time, block, chip, start):
    chip, limit = chip % chips, -(-(start + time) // chips)
    mask = Striped(start, 1, chip, chips, start // chips)
    keys = np.arange(limit)
    seen = np.asarray(mask.seen(keys[None], QueryBlock(time)))
    expected = (keys * chips + chip)[None] <= start + np.arange(time)[:, None]
    assert np.array_equal(seen, expected)
    begins, ends = mask.key_blocks(block, time, block, limit)
    for part, (first, end) in enumerate(zip(begins, ends, strict=True)):
        own = expected[part * block : (part + 1) * block].any(axis=0)
        assert not own[end * block :].any()
        assert not own[: first * block].any()


@pytest.mark.parametrize(
    ("model", "shape", "changes", "says"),
    [
        ("gpt", (1, 2, 2), {}, "attn_sharding=sequence: finds no axis of mesh_shape"),
        ("palm", CHIPS, {"ffn_layout": "wg_xyz", "batch_size": 8}, "attn_sharding=sequence: finds no axis"),
        ("palm", CHIPS, {"partitioner": "gspmd"}, "partitioner=gspmd: knows no attn_sharding=sequence"),
        ("palm", CHIPS, {"prefill": PrefillOptions(prefix=2)}, "engine.shared_prefix=2: does not go with"),
        ("palm", CHIPS, {"prefill": PrefillOptions(chunk=5)}, "engine.prefill_chunk=5: must be a multiple of the 8"),
    ],
)
def test_what_does_not_go_with_it(model, shape, changes, says):
    asked = {"ffn_layout": "ws_2d", "batch_size": 1, **changes}
    with pytest.raises(InvalidRequest, match=says):
        plan_of(model, shape, attn_sharding="sequence", **asked)


CASES = [
    ("palm", "ws_2d", 1, {}),
    ("llama", "ws_1d", 2, {"kv_dtype": "int8"}),
    ("deepseek", "ws_2d", 1, {}),
    ("deepseek", "ws_1d", 1, {"latent_attention": "expanded"}),
]


def closed_form(plan, time):
    named = ((each, "" if each.kind == "collective-permute" else each.axes) for each in layer_transfers(plan, time))
    return Counter((each.kind, axes, each.payload_bytes) for each, axes in named)


@pytest.mark.thorough(every=2)
@pytest.mark.slow
@pytest.mark.usefixtures("plainly_compiled")
@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("case", CASES)
def test_a_layer_sends_what_the_closed_form_says(case, phase):
    plan = long_sequence(*case, CHIPS)
    assert layer_collectives(plan, phase) == closed_form(plan, LENGTH if phase == "prefill" else 1)


@pytest.mark.slow
def test_on_64_devices():
    here = Path(__file__).parent
    environment = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=64",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")]),
    }
    phases = ("prefill", "decode", "prefill")  # of each on eight devices both
    asked = [(*case, (4, 4, 4), phase) for case, phase in zip(CASES, phases, strict=False)]
    done = subprocess.run(
        [sys.executable, str(here / "hlo_collectives.py"), json.dumps(asked), "long"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    for case, line in zip(asked, done.stdout.splitlines(), strict=True):
        counted = Counter({tuple(each[:3]): each[3] for each in json.loads(line)})
        assert counted == closed_form(long_sequence(*case[:-1]), LENGTH if case[-1] == "prefill" else 1), case
