"""The engine with XLA's real GPU compiler, for GPUs that are not here."""

import gzip
import json
from dataclasses import replace
from functools import partial

import pytest
from builders.points import point as build_point
from compiled_cases import answer_to, ask

from bench.planner.shardings import with_shardings
from bench.sweep.catalog import load_chip, load_model
from engines.core.sharding_summary import summary
from engines.core.shardings import Shardings

pytestmark = pytest.mark.slow

pytest.importorskip("jax_plugins.xla_cuda12", reason="the compiler comes with shardbench[gpu-compiler]")

GPT = load_model("gpt-20b")


point = partial(
    build_point,
    model=replace(GPT, num_layers=4),
    hw="a100-80gb",
    engine="compiled",
    phase="decode",
    num_chips=8,
    tensor_parallel=8,
    batch_size=16,
    input_len=60,
    output_len=20,
    weight_dtype="float16",
)


def test_a_step_is_timed_accounted_for_and_fits():
    answer = answer_to(point())
    assert answer.status == "ok", answer.error
    facts = answer.facts
    assert answer.latency_s == pytest.approx(20 * answer.step_time_s)
    parts = facts.compute_s + facts.communication_s - facts.overlapped_s + facts.overhead_s
    assert parts == pytest.approx(answer.latency_s, rel=1e-6)
    # An eighth of the layers' and embedding's float16 weights lies on each GPU, and is read every step at the least.
    weights = 2 * (4 * (4 * 6144**2 + 2 * 6144 * 24576) + 51200 * 6144) / 8
    assert facts.weights_bytes == pytest.approx(weights, rel=0.05)
    assert answer.step_time_s > weights / 2039e9
    # Whatever the cache keeps, the weights are larger than it.
    assert 20 * weights / 2039e9 < facts.details["least_s"] < answer.latency_s
    assert facts.peak_hbm_bytes < 80 * 2**30
    assert facts.details["unknown_instructions"] == {}
    assert facts.details["unestimated_instructions"] == {}
    assert facts.details["roofline"]["not_modelled"]
    assert facts.details["hot_loop"]["decode"]["turns"] == 20 * 4
    assert (facts.resolved["ffn_layout"], facts.resolved["attn_sharding"]) == ("ws_1d", "heads")
    assert facts.device_kind == "a100-80gb"
    assert facts.versions["jax-cuda12-plugin"]
    assert "libtpu" not in facts.versions


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_the_program_s_operations_are_those_of_the_model(phase):
    """2 · weights of every product · tokens, and 4 · positions · heads · head_dim a layer and token, over 8 GPUs."""
    asked = point() if phase == "decode" else point(phase=phase, input_len=256)
    answer = answer_to(asked)
    assert answer.status == "ok", answer.error
    layers, positions = 4, 60 + 20 if phase == "decode" else 256
    tokens, logits = (16 * 20, 16 * 20) if phase == "decode" else (16 * 256, 16)
    products = 2 * tokens * layers * (4 * 6144**2 + 2 * 6144 * 24576) + 2 * logits * 6144 * 51200
    attention = 4 * tokens * positions * 6144 * layers
    # Norms, activations and softmax come on top.
    assert 1 < answer.facts.details["flops"] / ((products + attention) / 8) < 1.02


@pytest.mark.thorough(every=3)
@pytest.mark.slow
@pytest.mark.parametrize("chip", ["h100-80gb", "h200", "b200"])
@pytest.mark.parametrize("num_chips", [1, 2])
def test_every_gpu_is_compiled_for(chip, num_chips):
    model = replace(GPT, num_layers=2)
    asked = point(model=model, hw=chip, num_chips=num_chips, tensor_parallel=None, weight_dtype="bfloat16")
    answer, _ = ask(asked)
    assert answer.status == "ok", answer.error
    assert answer.facts.details["unknown_instructions"] == {}
    assert (answer.facts.communication_s > 0) == (num_chips > 1)


def test_a_mesh_that_is_asked_for_is_used_and_may_be_cut_in_two_dimensions():
    asked = point(tensor_parallel=None, mesh_shape=(1, 2, 4), ffn_layout="ws_2d", attn_sharding="batch")
    answer, _ = ask(asked)
    assert answer.status == "ok", answer.error
    assert "mesh_shape" not in answer.facts.resolved
    one_axis, _ = ask(point(mesh_shape=(1, 1, 8)))
    assert one_axis.latency_s == pytest.approx(answer_to(point()).latency_s, rel=0.01)  # a switch knows no axes


def test_what_does_not_fit_is_oom_with_the_compiler_s_figures():
    answer, _ = ask(point(model=load_model("gpt-175b"), num_chips=2, tensor_parallel=2))
    assert answer.status == "oom"
    # Half of 2 bytes a weight is 163 GiB.
    assert "GiB of 80.0 GiB a GPU" in answer.error
    assert "of arguments" in answer.error
    assert "\n" not in answer.error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_chips": 16, "tensor_parallel": 16}, "num_chips=16: engine=compiled compiles for the 8 GPUs of one node"),
        ({"num_chips": 3, "tensor_parallel": 3}, "num_chips=3"),
        (
            {"tensor_parallel": 4, "batch_size": 5},
            "batch_size=5: does not split into 2 micro-batches of engine=compiled",
        ),
        ({"tensor_parallel": 4, "collectives": "throughput"}, "collectives=throughput: engine=compiled with tensor_"),
        ({"ffn_layout": "ws_2d"}, "tensor_parallel=8 implies ffn_layout=ws_1d"),
        (
            {"hw": replace(load_chip("a100-80gb"), name="gtx", cuda=None)},
            "hw=gtx: XLA's CUDA compiler, the only one here for GPUs, needs figures that its file does not state",
        ),
        ({"hw": replace(load_chip("a100-80gb"), node_bytes_per_s=None)}, "node_bytes_per_s is not known"),
        ({"act_dtype": "float8_e4m3"}, "act_dtype=float8_e4m3: a matmul in float8_e4m3 needs"),
    ],
)
def test_what_it_cannot_compile_is_one_sentence(changes, words):
    answer, _ = ask(point(**changes))
    assert answer.status == "unsupported"
    assert words in answer.error
    assert "\n" not in answer.error


def test_an_option_that_the_compiler_does_not_know_is_a_failed_row():
    answer, _ = ask(point(model=replace(GPT, num_layers=1)), compiler_options={"xla_gpu_no_such_thing": "1"})
    assert answer.status == "failed"
    assert "xla_gpu_no_such_thing" in answer.error


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
    from engines.compiled.target import installed

    missing = ("jax_cuda12_plugin", "jax_plugins.xla_cuda12")
    monkeypatch.setattr(installed, "find_spec", lambda name: None if name in missing else object())
    answer, _ = ask(point())
    assert answer.status == "failed"
    assert answer.error.endswith("which is not installed; pip install 'shardbench[gpu-compiler]'")
    # The TPU's compiler is another, and still there.
    installed.check_installed(load_chip("tpu-v4"))


@pytest.mark.thorough
def test_the_second_run_compiles_nothing_and_another_gpu_does(tmp_path):
    small = replace(GPT, num_layers=2)
    first, engine = ask(point(model=small), cache_dir=str(tmp_path))
    assert engine.compiler.compilations == 1
    second, engine = ask(point(model=small), cache_dir=str(tmp_path))
    assert engine.compiler.compilations == 0
    assert second.latency_s == first.latency_s
    _, engine = ask(point(model=small, hw="h100-80gb"), cache_dir=str(tmp_path))
    assert engine.compiler.compilations == 1
    _, engine = ask(point(model=small), cache_dir=str(tmp_path), compiler_options={"xla_gpu_enable_triton_gemm": False})
    assert engine.compiler.compilations == 1


def test_products_by_cublas_are_read_as_well():
    triton = answer_to(point())
    cublas, _ = ask(point(), compiler_options={"xla_gpu_enable_triton_gemm": False})
    assert cublas.status == "ok", cublas.error
    assert cublas.facts.details["flops"] == pytest.approx(triton.facts.details["flops"], rel=0.01)
    assert cublas.facts.details["unestimated_instructions"] == {}


def test_int8_weights_are_read_as_int8_and_multiplied_as_what_they_are_converted_to():
    answer, _ = ask(point(weight_dtype="int8", act_dtype="float16"))
    assert answer.status == "ok", answer.error
    halves = answer_to(point())
    assert answer.facts.weights_bytes < 0.6 * halves.facts.weights_bytes
    assert answer.facts.details["hbm_bytes_moved"] < halves.facts.details["hbm_bytes_moved"]


def test_a_trace_tells_what_bounds_each_instruction(tmp_path):
    ask(point(), trace_dir=str(tmp_path))
    (path,) = tmp_path.glob("*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert "link nvswitch" in {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    products = [event for event in events if event.get("cat") == "matmul"]
    assert products
    for event in products:
        assert event["args"]["bound"] in ("compute", "memory")
        assert event["args"]["flops_per_byte"] > 1


@pytest.mark.slow
def test_one_layer_times_layers_agrees_with_all_layers():
    def seconds(layers):
        return answer_to(point(model=replace(GPT, num_layers=layers))).step_time_s

    four, eight, whole = seconds(4), seconds(8), seconds(44)
    assert four + 40 * (eight - four) / 4 == pytest.approx(whole, rel=0.02)


def test_a_plan_of_every_operator_is_compiled():
    """No named layout: a prompt's batch split over all GPUs, and the weights gathered or copied."""
    asked = with_shardings(
        point(
            model=replace(load_model("llama-3-8b"), num_layers=2), hw="h100-80gb", phase="prefill", num_chips=4,
            tensor_parallel=None, input_len=256, weight_dtype="bfloat16", planner="alpa",
        )
    )  # fmt: skip
    answer = answer_to(asked)
    assert answer.status == "ok", answer.error
    tokens = 16 // 4 * 256
    told = Shardings.parse(asked.shardings)
    assert len(told["attention"][0]) == 2, summary(told)
    operators = {each["operator"]: each for each in answer.facts.details["operators"]["prefill"]}
    for name in ("ffn.in", "ffn.out"):
        assert [each["on_chip"][0] for each in operators[name]["matmuls"]] == [tokens], name
