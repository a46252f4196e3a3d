"""The engine as the harness sees it."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch_cases import ARCHITECTURES, changed, point

from bench.run.load_engine import make_engine
from bench.sweep.catalog import load_group
from engines.core.engine import Runner
from engines.core.errors import InvalidRequest, OutOfMemory, Unsupported
from engines.torch import quality
from engines.torch.devices import check_devices
from engines.torch.engine import TorchEngine

pytestmark = [pytest.mark.usefixtures("small_peaks", "small_torch_peaks"), pytest.mark.slow]


def engine(**changes):
    return make_engine({**load_group("engine", "torch"), **changes})


def prepared(asked, **changes):
    return engine(**changes).prepare(asked)


def test_is_a_runner_that_takes_its_configuration():
    assert isinstance(engine(), Runner)
    assert engine().tolerance["float32"] == 1e-5
    with pytest.raises(InvalidRequest, match=r"engine\.decode=quick"):
        engine(decode="quick")


def test_importing_it_does_not_import_torch():
    code = "import sys, engines.torch.engine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("phase", "stages"), [("prefill", ["prefill"]), ("decode", ["decode"]), ("generate", ["prefill", "decode"])]
)
def test_stages_of_a_phase_repeat_and_verify(phase, stages):
    program = prepared(point(phase=phase))
    assert [stage.name for stage in program.stages] == stages
    first, second = program.verify(), program.verify()
    assert first.ok
    assert 0 < first.max_relative_error < 1e-5
    assert 0 <= first.kl_divergence < 1e-9
    assert first == second
    program.close()
    program.close()


def test_decode_without_a_prompt_starts_from_a_token():
    program = prepared(point(phase="decode", input_len=0))
    assert program.verify().ok
    program.close()


def test_prompt_of_one_token_and_answer_of_one():
    for phase in ("prefill", "generate"):
        program = prepared(point(phase=phase, input_len=1, output_len=1))
        assert program.verify().ok
        program.close()


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize(
    "formats",
    [
        {"weight_dtype": "bfloat16"},
        {"weight_dtype": "int8"},
        {"weight_dtype": "int8", "act_dtype": "float32"},
        {"weight_dtype": "float32", "act_dtype": "bfloat16"},
        {"weight_dtype": "float32", "kv_dtype": "bfloat16"},
        {"weight_dtype": "float16"},
    ],
)
def test_narrow_formats_stay_within_their_tolerance(formats):
    program = prepared(point("llama", **formats))
    checked = program.verify()
    assert checked.ok
    # Narrow formats differ, or they were not what ran.
    assert checked.max_relative_error > 1e-5
    program.close()


def test_a_model_that_is_not_the_reference_fails_verification():
    program = prepared(point())
    parameters = program.rank_group.rank.parameters
    with torch.inference_mode():
        parameters.layers[1].matrices["wo"].weight.mul_(1.02)
    assert not program.verify().ok
    program.close()


def test_facts_of_one_rank():
    program = prepared(point())
    facts = program.facts()
    model = ARCHITECTURES["palm"]
    assert facts.weights_bytes == 4 * model.params
    # k and v × 3 layers × 3 sequences × 13 positions × 1 head × 32, 4 bytes.
    assert facts.kv_cache_bytes == 2 * 3 * 3 * 13 * 32 * 4
    assert facts.resolved == {
        "runtime": "torch-eager",
        "collectives": "plain",
        "ffn_layout": None,
        "attn_sharding": None,
    }
    assert facts.peak_flops_per_s > 0
    assert facts.hbm_bytes_per_s > 0
    assert facts.details["decode"] == "eager"
    program.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight_dtype": "int4"}, "weight_dtype=int4"),
        ({"act_dtype": "int8"}, "act_dtype=int8"),
        ({"kv_dtype": "int8"}, "kv_dtype=int8"),
        ({"weight_dtype": "int8", "weight_group_size": 8}, "weight_group_size=8"),
        ({"weight_dtype": "int8", "head_dtype": "bfloat16"}, "head_dtype=bfloat16"),
        ({"tensor": 8, "ffn_layout": "ws_2d"}, "ffn_layout=ws_2d"),
        ({"tensor": 3, "attn_sharding": "batch"}, "attn_sharding=batch"),
        ({"collectives": "throughput"}, "collectives=throughput"),
        ({"partitioner": "gspmd"}, "partitioner=gspmd"),
        ({"mesh_shape": (1, 1, 1)}, r"mesh_shape=\[1, 1, 1\]"),
        ({"hw": "a100-80gb"}, "hw=a100-80gb"),
        ({"hw": "tpu-v4", "tensor_parallel": None, "pipeline_parallel": None}, "hw=tpu-v4"),
        ({"tensor": 3}, "tensor_parallel=3"),
        ({"pipeline": 4}, "pipeline_parallel=4"),
    ],
)
def test_refuses_before_it_loads(changes, said):
    with pytest.raises(Unsupported, match=said):
        prepared(point(**changes))


def test_asked_wrongly():
    with pytest.raises(InvalidRequest, match="tensor_parallel=2"):
        prepared(point(tensor_parallel=2))


def test_graphs_need_a_gpu_and_one_stage():
    with pytest.raises(Unsupported, match=r"engine\.decode=graph: needs a GPU"):
        prepared(point(), decode="graph")
    with pytest.raises(Unsupported, match=r"engine\.decode=compile: needs pipeline_parallel=1"):
        prepared(point(pipeline=2), decode="compile")


def test_more_than_the_machine_has_is_out_of_memory():
    with pytest.raises(OutOfMemory, match="batch_size=4194304"):
        prepared(point(batch_size=1 << 22, input_len=2000))
    with pytest.raises(OutOfMemory, match="does not fit"):
        prepared(dataclasses.replace(point(), model=changed(d_ff=1 << 30)))


@pytest.mark.slow
def test_two_ranks_know_their_facts():
    program = prepared(point("falcon", tensor=2))
    facts = program.facts()
    layout = {"ffn_layout": "ws_1d", "attn_sharding": "heads", "collectives": "plain"}
    assert facts.resolved == {"runtime": "torch-eager", **layout}
    assert facts.kv_cache_bytes == 2 * 3 * 3 * 13 * 32 * 4
    # Half of every matrix, all of every norm.
    assert facts.weights_bytes == pytest.approx(4 * ARCHITECTURES["falcon"].params / 2, rel=0.01)
    assert program.verify().ok
    program.close()


@pytest.mark.parametrize(
    ("asked", "compiler", "decode"),
    [
        ({}, True, "graph"),
        ({"weight_dtype": "int8"}, True, "compile"),
        ({"weight_dtype": "int8"}, False, "graph"),
        ({"weight_dtype": "int8", "tensor": 2}, True, "graph"),
        ({"pipeline": 2}, True, "eager"),
        ({"hw": "cpu", "weight_dtype": "int8"}, True, "eager"),
    ],
)
def test_how_a_gpu_decodes_by_itself(monkeypatch, asked, compiler, decode):
    monkeypatch.setattr("engines.torch.engine._can_compile", lambda: compiler)
    assert TorchEngine()._decode_of(point(**{"hw": "h200", **asked})) == decode


def test_settings_that_change_what_runs_are_options():
    assert TorchEngine().options == {}
    assert TorchEngine(decode="graph", seed=3, rank_timeout_s=5).options == {"decode": "graph", "seed": 3}


def test_ranks_of_other_machines_need_no_gpu_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "NVIDIA H200")
    asked = point(hw="h200", tensor=8, pipeline=2)
    check_devices(asked, 8)
    with pytest.raises(Unsupported, match="num_chips=16: PyTorch sees 8 GPUs for 16 ranks"):
        check_devices(asked, 16)
    with pytest.raises(Unsupported, match="hw=h100-80gb: is not on this machine, which has 8 × NVIDIA H200"):
        check_devices(point(hw="h100-80gb"), 1)


def test_a_gpu_without_room_for_the_reference_leaves_it_to_the_host(monkeypatch):
    places = []

    def reference(model, tokens, positions, source, length):
        places.append(tokens)
        if tokens == "on the GPU":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "logits"

    class Tokens:
        def to(self, device):
            return f"on the {'GPU' if device == 'cuda' else device}"

    monkeypatch.setattr(quality, "reference_logits", reference)
    tokens = Tokens()
    for asked in (point(hw="h200"), point()):
        assert quality.reference(asked, asked.model, tokens, [0], 0) == "logits"
    assert places == ["on the GPU", tokens, tokens]
