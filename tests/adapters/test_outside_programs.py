import configparser
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from a_point import point
from processes import wait_for, wait_until_gone

from bench.measure.timing import TimingConfig
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask
from bench.run.worker import answer
from bench.sweep.catalog import load_group, load_model
from engines.external.fastertransformer.output import read_latency_s


def llama(engine, **changes):
    return point(model="llama-3-8b", engine=engine, weight_dtype="bfloat16", **changes)


@pytest.fixture
def vllm(program):
    config = {**load_group("engine", "vllm"), "program": program("vllm"), "nvidia_smi": program("nvidia_smi")}
    return make_engine({**config, "runs": 5})


@pytest.fixture
def trtllm(program, tmp_path):
    config = {**load_group("engine", "trtllm"), "program": program("trtllm_bench"), "model_path": str(tmp_path)}
    return make_engine({**config, "nvidia_smi": program("nvidia_smi"), "runs": 4})


def pids(folder):
    return [int(path.read_text(encoding="utf-8")) for path in folder.glob("pid-*")]


def test_fastertransformer_answers_with_its_own_time(faster, monkeypatch, tmp_path):
    monkeypatch.setenv("STAND_IN_FOLDER", str(tmp_path))
    [answer] = faster().estimate([point()])
    assert (answer.status, answer.error) == ("ok", None)
    assert answer.latency_s == pytest.approx(0.12345)
    assert answer.facts.details["timed_by"] == "multi_gpu_gpt_example"
    degrees = {"tensor_parallel": 2, "pipeline_parallel": 1}
    assert answer.facts.resolved == {"runtime": "fastertransformer", **degrees, "first_token": "prefill"}
    assert answer.facts.device_kind == "NVIDIA A100-SXM4-80GB"
    config = configparser.ConfigParser()
    config.read(tmp_path / "config.ini")
    assert dict(config["request"]) == {
        "request_batch_size": "3",
        "request_output_len": "8",
        "remove_padding": "false",
    }
    instance = config["ft_instance_hyperparameter"]
    assert instance["max_seq_len"] == "28"
    assert (instance["tensor_para_size"], instance["pipeline_para_size"]) == ("2", "1")
    assert (instance["data_type"], instance["int8_mode"], instance["top_k"]) == ("fp16", "0", "1")
    section = config[instance["model_name"]]
    assert (section["head_num"], section["size_per_head"], section["decoder_layers"]) == ("48", "128", "44")
    assert (section["vocab_size"], section["inter_size"]) == ("51200", "24576")


def test_fastertransformer_degrees_and_int8(faster, monkeypatch, tmp_path):
    monkeypatch.setenv("STAND_IN_FOLDER", str(tmp_path))
    asked = point(num_chips=4, tensor_parallel=2, pipeline_parallel=2, weight_dtype="int8", act_dtype="float16")
    [answer] = faster().estimate([asked])
    assert answer.status == "ok"
    assert answer.facts.resolved == {"runtime": "fastertransformer", "first_token": "prefill"}
    config = configparser.ConfigParser()
    config.read(tmp_path / "config.ini")
    instance = config["ft_instance_hyperparameter"]
    assert (instance["tensor_para_size"], instance["pipeline_para_size"], instance["int8_mode"]) == ("2", "2", "1")


@pytest.mark.parametrize(
    ("mode", "status", "said"),
    [
        ("fails", "failed", "exit code 7; its output ends with: .*the weights are not there"),
        ("memory", "oom", "out of memory"),
        ("garbage", "failed", r"printed no \[INFO\] line .*request_batch_size many"),
        ("silent", "failed", r"printed no \[INFO\] line"),
        ("another", "failed", "ran decoder_layers=45 instead of decoder_layers=44"),
        ("zero", "failed", "printed a time of 0 s"),
    ],
)
def test_fastertransformer_that_goes_wrong_says_how(faster, monkeypatch, mode, status, said):
    monkeypatch.setenv("STAND_IN", mode)
    [answer] = faster().estimate([point()])
    assert (answer.status, answer.latency_s) == (status, None)
    assert pytest.raises(Exception, match=said).matches(Exception(answer.error)), answer.error


def test_fastertransformer_that_hangs_is_ended_with_all_its_ranks(faster, monkeypatch, tmp_path, time_is_up_once):
    monkeypatch.setenv("STAND_IN", "hangs")
    monkeypatch.setenv("STAND_IN_FOLDER", str(tmp_path))
    time_is_up_once(lambda: len(pids(tmp_path)) == 2)
    [answer] = faster(run_timeout_s=500).estimate([point()])
    assert answer.status == "timeout"
    assert "did not end within 500 s; its output ends with: [INFO] Device" in answer.error
    wait_until_gone(*pids(tmp_path))


def test_kill_9_of_the_caller_ends_the_ranks(faster, monkeypatch, tmp_path):
    engine = faster()
    (tmp_path / "ask.py").write_text(
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_outside_programs import point\n"
        "from engines.external.fastertransformer.engine import FasterTransformerEngine\n"
        f"FasterTransformerEngine(binary={str(engine.binary)!r}, mpirun={engine.mpirun[0]!r}, "
        f"nvidia_smi={engine.nvidia_smi!r}).estimate([point()])\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "STAND_IN": "hangs", "STAND_IN_FOLDER": str(tmp_path)}
    here = Path(__file__).parent
    words = [sys.executable, str(tmp_path / "ask.py"), str(here), str(here.parent)]
    with subprocess.Popen(words, env=environment) as caller:
        wait_for(lambda: len(pids(tmp_path)) == 2)
        caller.send_signal(signal.SIGKILL)
    wait_until_gone(*pids(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": load_model("palm-8b")}, "block=serial"),
        ({"model": load_model("llama-3-8b")}, "gelu"),
        ({"phase": "decode"}, "phase=decode"),
        ({"weight_dtype": "int8", "act_dtype": "float32"}, "act_dtype=float32"),
        ({"weight_dtype": "int4"}, "weight_dtype=int4"),
        ({"weight_dtype": "int8", "weight_group_size": 128}, "weight_group_size=128"),
        ({"weight_dtype": "int8", "head_dtype": "float16"}, "head_dtype=float16"),
        ({"kv_dtype": "int8"}, "kv_dtype=int8"),
        ({"hw": "h200"}, "hw=h200: is not on this machine, which has 8 × NVIDIA A100"),
        ({"num_chips": 3}, "num_chips=3"),
        ({"first_token": "decode"}, "first_token=decode"),
        ({"tensor_parallel": 8}, "tensor_parallel=8"),
    ],
)
def test_fastertransformer_refuses_in_one_sentence(faster, changes, said):
    [answer] = faster().estimate([point(**changes)])
    assert answer.status == "unsupported"
    assert said in answer.error
    assert "\n" not in answer.error


def test_fastertransformer_that_is_not_built(faster, tmp_path):
    [answer] = faster(binary=None).estimate([point()])
    assert (answer.status, "engine.binary=PATH" in answer.error) == ("unsupported", True)
    [answer] = faster(binary=str(tmp_path / "none")).estimate([point()])
    assert (answer.status, "is not a file" in answer.error) == ("unsupported", True)
    [answer] = faster(mpirun=str(tmp_path / "no-mpirun")).estimate([point()])
    assert (answer.status, "no-mpirun is not installed" in answer.error) == ("unsupported", True)
    [answer] = faster(nvidia_smi=str(tmp_path / "none")).estimate([point()])
    assert (answer.status, "which has no GPU" in answer.error) == ("unsupported", True)


def test_of_several_ranks_that_print_the_slowest_counts():
    line = (
        "[INFO] request_batch_size 3 beam_width 1 head_num 48 size_per_head 128 total_output_len 28 "
        "decoder_layers 44 vocab_size 51200 FT-CPP-decoding-beamsearch-time {} ms"
    )
    output = "\n".join(["noise", line.format("100"), "between", line.format("2.5e2"), line.format("99.9")])
    assert read_latency_s(output, point()) == pytest.approx(0.25)


def test_vllm_keeps_its_samples(vllm):
    [answer] = vllm.estimate([llama("vllm")])
    assert (answer.status, answer.error) == ("ok", None)
    assert answer.samples_s == pytest.approx([0.080, 0.081, 0.082, 0.083, 0.084])
    assert answer.latency_s == pytest.approx(0.082)
    command = answer.facts.details["command"]
    assert "--batch-size 3 --input-len 20 --output-len 8 --dtype bfloat16" in command
    assert "--tensor-parallel-size 2" in command


@pytest.mark.parametrize(
    ("mode", "status", "said"),
    [
        ("memory", "oom", "CUDA out of memory"),
        ("silent", "failed", "wrote no readable latency.json"),
        ("garbage", "failed", "wrote no readable latency.json"),
        ("another", "failed", "latencies must be a list"),
    ],
)
def test_vllm_that_goes_wrong_says_how(vllm, monkeypatch, mode, status, said):
    monkeypatch.setenv("STAND_IN", mode)
    [answer] = vllm.estimate([llama("vllm")])
    assert answer.status == status
    assert said in answer.error


def test_vllm_refuses_in_one_sentence(vllm):
    palm = point(model="palm-8b", engine="vllm")
    asked = [palm, llama("vllm", phase="prefill"), llama("vllm", kv_dtype="int8")]
    answers = vllm.estimate(asked)
    assert [answer.status for answer in answers] == ["unsupported"] * 3
    assert "random weights for families of transformers alone, and" in answers[0].error
    assert "phase=prefill" in answers[1].error
    assert "weight_dtype=bfloat16" in answers[2].error


def test_trtllm_reads_the_median_of_its_report(trtllm):
    [answer] = trtllm.estimate([llama("trtllm", batch_size=1)])
    assert (answer.status, answer.error) == ("ok", None)
    assert answer.latency_s == pytest.approx(0.080)
    assert "--tp 2 --pp 1" in answer.facts.details["command"]
    [answer] = trtllm.estimate([llama("trtllm")])
    assert (answer.status, "batch_size=3" in answer.error) == ("unsupported", True)


@pytest.mark.parametrize("mode", ["zero", "text", "another", "silent"])
def test_trtllm_that_goes_wrong_says_how(trtllm, monkeypatch, mode):
    monkeypatch.setenv("STAND_IN", mode)
    [answer] = trtllm.estimate([llama("trtllm", batch_size=1)])
    assert answer.status == "failed"
    assert "trtllm-bench" in answer.error


def test_rows_say_who_timed_them(vllm, faster):
    rows = [
        answer(engine, PointTask(point=of, point_id="0" * 16, source=engine.source, sweep=None), TimingConfig())
        for engine, of in ((vllm, llama("vllm")), (faster(), point()))
    ]
    assert [row.source for row in rows] == ["measured", "measured"]
    assert [row.details["timed_by"] for row in rows] == ["vllm bench latency", "multi_gpu_gpt_example"]
    sampled, single = rows
    assert (sampled.n, sampled.median, sampled.latency_s) == (5, pytest.approx(0.082), pytest.approx(0.082))
    assert sampled.std == pytest.approx(0.00158, rel=0.01)
    assert sampled.ci_low <= sampled.median <= sampled.ci_high
    assert (single.n, single.samples_s) == (None, None)
    assert single.mfu == pytest.approx(3 * 28 * 2 * 20e9 / 0.12345 / (2 * 312e12))
    assert set(sampled.chosen) == {"runtime", "tensor_parallel", "pipeline_parallel", "first_token"}
    assert {row.first_token for row in rows} == {"prefill"}


def test_what_ran_is_the_command_its_files_and_the_program(faster, vllm, trtllm):
    """The temporary folder is no part of it, so that it is the same each time."""
    for engine, of in ((faster(), point()), (vllm, llama("vllm")), (trtllm, llama("trtllm", batch_size=1))):
        (answer_now,) = engine.estimate([of])
        assert answer_now.status == "ok", answer_now.error
        assert answer_now.facts.program_id == engine.program_id(of) != engine.program_id(of_length(of))
    before = vllm.program_id(llama("vllm"))
    vllm.arguments.append("--enforce-eager")
    assert vllm.program_id(llama("vllm")) != before
    engine = faster()
    one, other = engine.program_id(point()), faster(seed=1).program_id(point())
    with engine.binary.open("a") as binary:
        binary.write("# built anew\n")
    assert len({one, other, engine.program_id(point())}) == 3


def of_length(of):
    return dataclasses.replace(of, output_len=of.output_len + 1)
