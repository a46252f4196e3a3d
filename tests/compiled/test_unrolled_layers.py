"""Layers with arrays of their own: timed from programs of few layers, and searched beside loops."""

import itertools
import os
import re
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from builders.models import small_model
from builders.points import point as build_point
from compiled_cases import ask

from bench.sweep.catalog import load_model
from engines.compiled import depth
from engines.compiled.compile.apart import Limits
from engines.compiled.compile.cache import Cache, CompiledProgram
from engines.compiled.compile.compiler import Compiler
from engines.compiled.cost.account import Account
from engines.compiled.cost.select import cost_model_of
from engines.compiled.cost.timeline import Timeline
from engines.compiled.engine import CompiledEngine
from engines.compiled.hlo.parser import Module
from engines.compiled.hlo.schedule import Schedule
from engines.compiled.requests import request_of
from engines.compiled.search import name_of
from engines.compiled.timed import TimedProgram, timed
from engines.core.errors import InvalidRequest
from engines.host.resident import resident_bytes

SMALL = replace(
    load_model("llama-3-8b"), num_layers=14, d_model=1024, d_ff=4096, num_heads=8, num_kv_heads=4, vocab_size=32000
)

point = partial(
    build_point,
    model=SMALL,
    hw="tpu-v5e",
    engine="compiled",
    phase="decode",
    num_chips=8,
    batch_size=8,
    input_len=255,
    output_len=1,
    weight_dtype="int8",
    kv_dtype="int8",
)


def phase(seconds: float, argument: float) -> TimedProgram:
    memory = {"argument": argument, "temp": 10.0, "output": 4.0, "alias": 4.0, "generated_code": 0.0}
    account = Account(total_s=seconds, compute_s=seconds, hbm_bytes=100 * seconds)
    account.by_kind["fusion"] = seconds  # type: ignore[assignment]
    schedule, timeline = Schedule("entry", {}), Timeline(account, [])
    compiled = CompiledProgram(text="", memory=memory, compile_s=1.0)
    return TimedProgram("decode", compiled, Module("small", "entry"), schedule, timeline, timeline, {})


def test_a_line_through_two_depths_by_hand():
    # 3 s a layer and 5 s besides; 7 bytes a layer and 100 besides.
    model = small_model(num_layers=80)
    few, more = (phase(5.0 + 3 * layers, 100.0 + 7 * layers) for layers in depth.depths_of(model))
    whole = depth.at_all_layers(few, more, model)
    assert whole.account.total_s == pytest.approx(5 + 3 * 80)
    assert whole.account.hbm_bytes == pytest.approx(100 * (5 + 3 * 80))
    assert whole.account.by_kind["fusion"] == pytest.approx(5 + 3 * 80)
    assert whole.compiled.memory["argument"] == pytest.approx(100 + 7 * 80)
    assert whole.compiled.memory["temp"] == 10
    assert whole.compiled.compile_s == 2
    assert whole.depths == (2, 6)
    assert depth.surely_fits(whole, 1.2 * 670)
    assert not depth.surely_fits(whole, 670)


@pytest.mark.parametrize(("layers", "every"), [(62, 6), (48, 2), (7, 3), (80, None)])
def test_the_two_depths_differ_from_each_other_and_from_all_by_whole_periods(layers, every):
    model = small_model(num_layers=layers, attention_window=None if every is None else 3, global_every=every)
    few, more = depth.depths_of(model)
    counts = [Counter(replace(model, num_layers=each).layer_kinds) for each in (few, more, layers)]
    added, rest = counts[1] - counts[0], counts[2] - counts[0]
    assert few >= 2
    assert more - few >= 4
    assert all(rest[kind] * (more - few) == added[kind] * (layers - few) for kind in counts[2])


@pytest.mark.parametrize("value", ["fast", 1, None, "true"])
def test_unrolling_is_true_false_or_auto(value):
    with pytest.raises(InvalidRequest, match=r"engine\.unroll_layers"):
        CompiledEngine(unroll_layers=value)


@pytest.mark.slow
def test_the_line_is_the_whole_program(monkeypatch, tmp_path):
    pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")
    asked = point(ffn_layout="ws_1d", attn_sharding="heads", collectives="all_reduce")
    line, engine = ask(asked, unroll_layers=True)
    assert line.status == "ok", line.error
    assert "programs of 2 and 6 layers" in line.facts.details["compiled_program"]
    assert engine.program_id(asked) == line.facts.program_id
    monkeypatch.setattr("engines.compiled.engine.shallow", lambda plan: [])
    whole, _ = ask(asked, unroll_layers=True, cache_dir=str(tmp_path))  # another program, which no answer is kept of
    assert "all 14 layers are unrolled" in whole.facts.details["compiled_program"]
    assert line.step_time_s == pytest.approx(whole.step_time_s, rel=0.03)
    assert line.facts.peak_hbm_bytes == pytest.approx(whole.facts.peak_hbm_bytes, rel=0.02)
    assert line.facts.weights_bytes == whole.facts.weights_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"timeout_s": 1e-6}, "not tried: nothing of engine.timeout_s is left"),
        ({"memory_limit_bytes": 1}, "not tried: nothing of engine.memory_limit_bytes is left"),
        # The tests beside this one are of its process group: what they take meanwhile may leave nothing to try with.
        ({"memory_limit_bytes": None}, "not compiled within engine.memory_limit_bytes|not tried: nothing of"),
    ],
)
def test_what_cannot_be_compiled_within_the_limits_costs_no_other_answer(limits, words, tmp_path):
    pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")
    model = replace(SMALL, num_layers=9)
    asked = point(model=model, phase="prefill", batch_size=1, input_len=64, output_len=0, ffn_layout="ws_1d")
    looped, _ = ask(asked)
    if "memory_limit_bytes" in limits and limits["memory_limit_bytes"] is None:
        limits = {"memory_limit_bytes": resident_bytes(os.getpgid(0)) + 100e6}  # no Python with JAX is so small
    found, _ = ask(asked, unroll_layers="auto", **limits)
    assert found.latency_s == looped.latency_s
    tried = found.facts.details["tried_s"]
    assert tried["ws_1d"] == looped.latency_s
    assert re.search(words, tried["ws_1d unrolled"])


@pytest.mark.slow
def test_apart_a_program_is_the_same(tmp_path):
    pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")
    model = replace(SMALL, num_layers=1)
    asked = point(model=model, phase="prefill", batch_size=1, input_len=64, output_len=0, ffn_layout="ws_1d")
    engine = CompiledEngine(cache_dir=str(tmp_path))
    target, ((name, *_), *_) = engine._question(asked)
    (plan,) = engine._layouts(asked, target, name, also=False)
    request = request_of(asked, plan, target, "prefill")
    apart = Limits.of(None, 600).compile(engine.compiler, request)
    assert engine.compiler.cache.get(engine.compiler.key(request)) == apart
    here = Compiler(Cache(None), {}).compile(request)
    assert here.memory == apart.memory
    cost = cost_model_of(asked.slice())
    assert timed("prefill", here, cost).account == timed("prefill", apart, cost).account


def test_no_order_of_the_variants_changes_what_is_tried():
    asked = point(ffn_layout="auto", attn_sharding="auto", collectives="auto")
    names = ("plain", "all_reduce", "exchange")
    tried = set()
    for order in itertools.permutations(names):
        engine = CompiledEngine(unroll_layers="auto", try_collectives=order, cache_dir="")
        target, kinds = engine._question(asked)
        tried.add(frozenset(map(name_of, engine._candidates(asked, target, kinds))))
    assert len(tried) == 1
    alone = CompiledEngine(try_collectives=["all_reduce"], cache_dir="")
    target, kinds = alone._question(asked)
    assert {plan.ffn_layout for plan in alone._candidates(asked, target, kinds)} == {"ws_1d"}


@pytest.mark.slow
@pytest.mark.thorough
def test_auto_is_the_fastest_of_looped_and_unrolled():
    pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")
    asked = point(batch_size=8, ffn_layout="auto", attn_sharding="auto", collectives="auto")
    found, engine = ask(asked, unroll_layers="auto", try_collectives=["plain", "all_reduce"])
    tried = found.facts.details["tried_s"]
    looped, *others = tried
    assert others == [f"{looped} unrolled", "ws_1d all_reduce heads unrolled", "ws_1d all_reduce batch unrolled"]
    assert found.latency_s == min(tried.values()) < tried[looped]
    assert found.facts.details["unrolled"]
    assert found.facts.resolved["collectives"] == "all_reduce"
    assert engine.options == {"try_collectives": ("plain", "all_reduce"), "unroll_layers": "auto"}
    assert found.facts.program_id == engine.program_id(asked)
