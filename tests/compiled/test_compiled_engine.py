"""The engine, with the real TPU compiler, for slices that are not here."""

import gzip
import json
import re
from dataclasses import replace
from functools import partial

import pytest
from builders.points import point as build_point
from compiled_cases import answer_to, ask

from bench.sweep.catalog import load_chip, load_model
from engines.compiled.engine import CompiledEngine
from engines.core.errors import InvalidRequest

pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")


SMALL = replace(load_model("palm-8b"), num_layers=4, d_model=1024, d_ff=4096, num_heads=8, vocab_size=32000)
"""What compiles soon, where any program will do."""

point = partial(
    build_point,
    model="palm-8b",
    hw="tpu-v4",
    engine="compiled",
    phase="decode",
    num_chips=8,
    batch_size=8,
    input_len=192,
    output_len=64,
    ffn_layout="ws_2d",
    attn_sharding="batch",
    collectives="plain",
)


@pytest.mark.slow
def test_a_step_is_timed_accounted_for_and_fits():
    answer = answer_to(point())
    assert answer.status == "ok", answer.error
    facts = answer.facts
    assert answer.latency_s == pytest.approx(64 * answer.step_time_s)
    parts = facts.compute_s + facts.communication_s - facts.overlapped_s + facts.overhead_s
    assert parts == pytest.approx(answer.latency_s, rel=0.02)
    # An eighth of 8.6e9 bf16 weights lies on each chip, and must be read every step.
    weights = load_model("palm-8b").params * 2 / 8
    assert facts.weights_bytes == pytest.approx(weights, rel=0.05)
    assert answer.step_time_s > weights / load_chip("tpu-v4").hbm_bytes_per_s
    assert facts.peak_hbm_bytes < load_chip("tpu-v4").hbm_bytes


@pytest.mark.slow
def test_one_layer_times_layers_agrees_with_all_layers():
    def seconds(layers):
        model = replace(load_model("palm-8b"), num_layers=layers)
        return answer_to(point(model=model)).step_time_s

    # Loops of one or two turns are unrolled and scheduled otherwise, so a layer is the slope between longer ones.
    eight, twelve, whole = seconds(8), seconds(12), seconds(32)
    assert eight + 24 * (twelve - eight) / 4 == pytest.approx(whole, rel=0.02)


@pytest.mark.slow
def test_the_second_run_compiles_nothing_and_says_the_same(tmp_path):
    asked = point(model=SMALL)
    first, engine = ask(asked, cache_dir=str(tmp_path))
    assert engine.compiler.compilations == 1
    second, engine = ask(asked, cache_dir=str(tmp_path))
    assert engine.compiler.compilations == 0
    assert second.latency_s == first.latency_s
    # What it ran is known without compiling, in any process, and not by what the classes and functions are called.
    fresh = CompiledEngine(cache_dir="")
    assert fresh.program_id(asked) == first.facts.program_id == second.facts.program_id
    assert fresh.compiler.compilations == 0
    others = [fresh.program_id(each) for each in (replace(asked, batch_size=16), replace(asked, collectives="oneway"))]
    assert len({first.facts.program_id, *others}) == 3
    # An answer that tells no instructions, or has one that was timed otherwise since, is not taken for today's.
    told = first.facts.details
    assert "scatter" not in told["timing_model"]["instructions"]
    scattering = {"timing_model": {"version": 2, "instructions": ["fusion", "scatter"]}}
    now = fresh.program_ids(asked, [told, {}, scattering])
    assert now[:2] == [first.facts.program_id, None]
    assert now[2] not in (None, first.facts.program_id)
    # Without the answer its program is found, and one that was cut is compiled again, and mended.
    (answer,) = (tmp_path / "answers").iterdir()
    answer.unlink()
    found, engine = ask(asked, cache_dir=str(tmp_path))
    assert engine.compiler.compilations == 0
    assert found == first
    answer.write_text(answer.read_text()[:100])
    (entry,) = tmp_path.rglob("*.json.gz")
    entry.write_bytes(entry.read_bytes()[:100])
    third, engine = ask(asked, cache_dir=str(tmp_path))
    assert engine.compiler.compilations == 1
    assert third.latency_s == first.latency_s


@pytest.mark.slow
def test_what_does_not_fit_is_oom_in_the_compilers_words():
    asked = point(model=load_model("palm-62b"), num_chips=1, ffn_layout="auto", attn_sharding="auto")
    answer, engine = ask(asked)
    assert answer.status == "oom"
    assert answer.facts.program_id == engine.program_id(asked)
    assert "G" in answer.error
    assert "\n" not in answer.error


@pytest.mark.thorough(every=2)
@pytest.mark.slow
@pytest.mark.parametrize(("chip", "num_chips"), [("tpu-v5e", 4), ("tpu-v5p", 4), ("tpu-v6e", 4), ("tpu-7x", 4)])
def test_every_generation(chip, num_chips):
    model = replace(load_model("palm-8b"), num_layers=2)
    answer, _ = ask(point(model=model, hw=chip, num_chips=num_chips, ffn_layout="ws_1d"))
    assert answer.status == "ok", answer.error
    assert answer.latency_s > 0
    assert answer.facts.details["unknown_instructions"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("mesh_shape", [(1, 2, 2), (2, 1, 2), (2, 2, 1)])
def test_a_slice_of_four_in_any_order_of_its_axes(mesh_shape):
    """The v4 compiler aborts on 1x2x2 and 2x1x2, which are 2x2x1 with other names."""
    layout = {"ffn_layout": "auto", "attn_sharding": "heads"}
    answer = answer_to(point(model=SMALL, num_chips=4, mesh_shape=mesh_shape, batch_size=1, **layout))
    assert answer.status == "ok", answer.error
    assert answer.facts.device_kind == "v4:2x2x1"


@pytest.mark.slow
def test_every_block_of_a_long_prompts_attention_is_timed():
    model, length = replace(load_model("palm-8b"), num_layers=1, d_ff=4096), 32768
    asked = {"phase": "prefill", "num_chips": 1, "batch_size": 1, "ffn_layout": "auto", "attn_sharding": "auto"}
    answer, _ = ask(point(model=model, input_len=length, **asked))
    assert answer.status == "ok", answer.error
    # q, o, gate, up and down; scores and values of 16 heads of 256, half of them masked.
    products = 2 * 5 * 4096 * 4096 * length
    attention = 2 * 2 * 16 * 256 * length**2 / 2
    assert answer.facts.compute_s > (products + attention) / load_chip("tpu-v4").peak_flops_per_s["bfloat16"]
    # All scores at once would be 64 GiB.
    assert answer.facts.activations_bytes < 4 * 2**30


@pytest.mark.slow
def test_the_kernel_for_tpus_compiles_in_a_whole_prefill():
    from engines.compiled.target.tpu import device_mesh, tpu_target_of
    from engines.transformer.options import PrefillOptions
    from engines.transformer.partition.resolve import plan_of
    from engines.transformer.programs import abstract_arguments, make_prefill

    model = replace(load_model("palm-8b"), num_layers=2)
    asked = point(model=model, phase="prefill", input_len=1024, attn_sharding="heads")
    target = tpu_target_of(asked.slice())
    mesh = device_mesh(target)
    plan = replace(plan_of(asked, mesh_shape=target.device_mesh), prefill=PrefillOptions(attention="splash"))
    lowered = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, 1024)["prefill"])
    assert "splash_mqa_fwd" in lowered.compile().as_text()


@pytest.mark.slow
def test_a_trace_opens_as_chrome_reads_it(tmp_path):
    answer, _ = ask(point(model=SMALL), trace_dir=str(tmp_path))
    (path,) = tmp_path.glob("*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    lanes = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert sum(lane.startswith("link") for lane in lanes) >= 2
    assert all(event["dur"] >= 0 for event in events if event["ph"] == "X")
    assert answer.facts.details["traces"] == {"decode": path.name}


@pytest.mark.slow
def test_int8_by_int8_reaches_the_matrix_unit_as_int8(tmp_path):
    answer, _ = ask(point(weight_dtype="int8", act_dtype="int8", kv_dtype="int8"), trace_dir=tmp_path, keep_hlo=True)
    assert answer.status == "ok", answer.error
    (path,) = tmp_path.glob("*.hlo.txt.gz")
    text = gzip.decompress(path.read_bytes()).decode()
    found = re.findall(r"= s32\[[\d,]+\]\S* convolution\((%[\w.-]+), (%[\w.-]+)\)", text)
    # A layer's two products, and the logits.
    assert len(found) == 3
    for operand in (name for pair in found for name in pair):
        assert re.search(rf"{re.escape(operand)} = s8\[", text), operand
    model, chips = load_model("palm-8b"), 8
    positions = point().batch_size * (point().input_len + point().output_len)
    kept = 2 * model.num_layers * positions / chips
    assert answer.facts.kv_cache_bytes == kept * (model.head_dim + 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hw": "cpu"}, "hw=cpu: engine=compiled compiles for TPUs and GPUs"),
        ({"hw": replace(load_chip("tpu-v4"), clock_hz=None)}, "hw=tpu-v4: clock_hz is not known"),
        ({"num_chips": 7}, "num_chips=7"),
        ({"act_dtype": "float8_e4m3"}, "act_dtype=float8_e4m3: a matmul in float8_e4m3 needs"),
        ({"act_dtype": "int8"}, "weight_dtype=bfloat16"),
    ],
)
def test_what_it_cannot_compile_is_one_sentence(changes, words):
    answer, _ = ask(point(**changes))
    assert answer.status == "unsupported"
    assert words in answer.error
    assert "\n" not in answer.error


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
    from engines.compiled.target import installed

    monkeypatch.setattr(installed, "find_spec", lambda name: None if name == "libtpu" else object())
    answer, _ = ask(point())
    assert answer.status == "failed"
    assert "shardbench[tpu]" in answer.error


@pytest.mark.slow
@pytest.mark.thorough
def test_open_collectives_are_the_fastest_of_those_tried(tmp_path):
    asked = point(model=SMALL, phase="prefill", batch_size=4, input_len=512, ffn_layout="auto", collectives="auto")
    plain, _ = ask(asked, cache_dir=str(tmp_path))
    best, engine = ask(asked, cache_dir=str(tmp_path), try_collectives=["plain", "latency"])
    assert engine.compiler.compilations == 1
    layout = plain.facts.resolved["ffn_layout"]
    tried = best.facts.details["tried_s"]
    assert set(tried) == {*plain.facts.details["tried_s"], f"{layout} latency"}
    assert best.latency_s == min(each for each in tried.values() if isinstance(each, float))
    assert engine.options == {"try_collectives": ("plain", "latency")}  # other rows than those of plain alone
    assert plain.facts.program_id != best.facts.program_id == engine.program_id(asked)


@pytest.mark.parametrize("names", [[], ["fast"], "plain", ["auto"]])
def test_variants_to_try_are_a_list_of_known_ones(names):
    with pytest.raises(InvalidRequest, match=r"engine\.try_collectives"):
        CompiledEngine(try_collectives=names)


AWQ = {"weight_dtype": "int4", "weight_group_size": 128}
FLOAT8 = {"weight_dtype": "float8_e4m3", "act_dtype": "float8_e4m3", "kv_dtype": "bfloat16", "head_dtype": "bfloat16"}


@pytest.mark.thorough(every=2)
@pytest.mark.slow
@pytest.mark.parametrize(("hw", "formats"), [("tpu-v5e", AWQ), ("tpu-v6e", AWQ), ("tpu-7x", AWQ), ("tpu-7x", FLOAT8)])
def test_served_formats_read_their_matrices_once_and_write_none(hw, formats):
    """A step reads what is stored: it makes no copy of a layer's weights, nor of them in 16 bits."""
    of = partial(point, model=SMALL, hw=hw, num_chips=1, ffn_layout="auto", attn_sharding="auto", head_dtype="bfloat16")
    narrow, wide = answer_to(of(**formats)), answer_to(of())
    assert narrow.status == wide.status == "ok", narrow.error
    layers = SMALL.matmul_params
    per_weight = 2 - of(**formats).weight_bytes
    saved = wide.facts.weights_bytes - narrow.facts.weights_bytes
    assert saved == pytest.approx(layers * per_weight, rel=5e-3)  # less the scales of float8's channels
    # The scores of groups and the vectors are small beside them; a written copy would take away more than is saved.
    moved = wide.facts.details["hbm_bytes_moved"] - narrow.facts.details["hbm_bytes_moved"]
    assert moved * load_chip(hw).xla.cores == pytest.approx(64 * layers * per_weight, rel=0.25)


@pytest.mark.parametrize("hw", ["tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e"])
def test_a_chip_that_multiplies_no_float8_says_what_it_does(hw):
    answer = answer_to(point(model=SMALL, hw=hw, num_chips=1, ffn_layout="auto", attn_sharding="auto", **FLOAT8))
    assert answer.status == "unsupported"
    assert answer.error == (
        f"hw={hw} states no peak for float8_e4m3 (it states: bfloat16, int8); use act_dtype=bfloat16, which stores "
        "weights as float8_e4m3 and converts them, or a chip with that peak"
    )
