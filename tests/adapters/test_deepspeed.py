"""The adapter of DeepSpeed, against a stand-in for its launcher; its script, against what it prints and reads."""

import json
from functools import partial

import pytest
from builders.points import point as build_point

from bench.run.load_engine import make_engine
from bench.sweep.catalog import load_group, load_model
from engines.external.deepspeed import engine as adapter
from engines.external.deepspeed import measure

point = partial(
    build_point,
    model="llama-2-7b",
    hw="a100-80gb",
    engine="deepspeed",
    phase="generate",
    num_chips=1,
    batch_size=3,
    input_len=20,
    output_len=8,
    weight_dtype="float16",
)


@pytest.fixture
def deepspeed(program, monkeypatch, tmp_path):
    monkeypatch.setenv("STAND_IN_FOLDER", str(tmp_path / "seen"))
    config = {**load_group("engine", "deepspeed"), "program": program("deepspeed"), "runs": 3}
    return lambda **changes: make_engine({**config, "nvidia_smi": program("nvidia_smi"), **changes})


def request(tmp_path):
    return json.loads((tmp_path / "seen" / "request.json").read_text(encoding="utf-8"))


def test_weights_on_the_gpus_run_the_inference_engine_over_all_of_them(deepspeed, tmp_path):
    [answer] = deepspeed().estimate([point(num_chips=2, tensor_parallel=2)])
    assert (answer.status, answer.error) == ("ok", None)
    assert answer.latency_s == 0.5
    assert answer.samples_s == [0.5, 0.25, 0.75]
    assert answer.facts.resolved["runtime"] == "deepspeed"
    assert answer.facts.details["program_versions"] == {"deepspeed": "0.19"}
    asked = request(tmp_path)
    assert (asked["tensor_parallel"], asked["zero"], asked["weights"]) == (2, None, False)
    config = json.loads((tmp_path / "seen" / "config.json").read_text(encoding="utf-8"))
    assert config["hidden_size"] == 4096


@pytest.mark.parametrize(("offload", "device"), [("host", "cpu"), ("nvme", "nvme")])
def test_offloaded_weights_run_zero_stage_3_from_there(deepspeed, tmp_path, offload, device):
    [answer] = deepspeed(offload_dir="/drive").estimate([point(offload=offload)])
    assert answer.status == "ok", answer.error
    zero = request(tmp_path)["zero"]
    assert zero["fp16"]["enabled"]
    assert zero["train_micro_batch_size_per_gpu"] == 3
    place = zero["zero_optimization"]["offload_param"]
    assert (zero["zero_optimization"]["stage"], place["device"]) == (3, device)
    assert place.get("nvme_path") == ("/drive" if offload == "nvme" else None)
    model = load_model("llama-2-7b")
    layers = model.num_layers * zero["zero_optimization"]["stage3_prefetch_bucket_size"]
    assert layers == pytest.approx(model.params - model.vocab_size * model.d_model, rel=1e-6)


@pytest.mark.parametrize(
    ("keys", "settings", "named"),
    [
        ({"offload": "nvme"}, {}, "set engine.offload_dir"),
        ({"offload": "host", "num_chips": 2, "tensor_parallel": 2}, {}, "use num_chips=1 with offload=host"),
        ({"num_chips": 2, "pipeline_parallel": 2}, {}, "pipeline_parallel=2"),
        ({"phase": "decode"}, {}, "phase=decode"),
        ({"offload_kv": "host"}, {}, "offload_kv=host"),
        ({}, {"program": "no-such-launcher"}, "pip install deepspeed transformers"),
    ],
)
def test_what_it_does_not_run_is_refused_by_its_key(deepspeed, keys, settings, named):
    [answer] = deepspeed(**settings).estimate([point(**keys)])
    assert answer.status == "unsupported"
    assert named in answer.error


@pytest.mark.parametrize(("mode", "status"), [("oom", "oom"), ("silent", "failed")])
def test_what_goes_wrong_is_told_apart(deepspeed, monkeypatch, mode, status):
    monkeypatch.setenv("STAND_IN_MODE", mode)
    [answer] = deepspeed().estimate([point()])
    assert answer.status == status


def test_the_script_and_the_adapter_speak_of_the_same_line_and_file():
    assert f"{measure.MARK} " == adapter.MARK
    assert adapter.SCRIPT.samefile(measure.__file__)
