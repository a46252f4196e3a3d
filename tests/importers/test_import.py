"""Files as the other harnesses write them, cut to what a reader can check by hand."""

import json
from importlib import import_module
from pkgutil import iter_modules

import pytest

from bench import importers
from bench.cli.args import parse
from bench.cli.commands import import_
from bench.importers.formats import FORMATS
from bench.rows.metrics import derive
from bench.rows.store import Store
from bench.sweep.catalog import load_chip, load_model
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.point import Point

LATENCY = {
    "avg_latency": 2.0,
    "std_latency": 0.1,
    "latencies": [1.9, 2.1, 1.8, 2.2],
    "percentiles": {"10": 1.83, "50": 2.0, "99": 2.197},
}
SERVE = {
    "date": "20250101-000000",
    "backend": "vllm",
    "model_id": "meta-llama/Meta-Llama-3-8B",
    "tokenizer_id": "meta-llama/Meta-Llama-3-8B",
    "num_prompts": 100,
    "request_rate": float("inf"),
    "max_concurrency": 16,
    "duration": 50.0,
    "completed": 100,
    "total_input_tokens": 100_000,
    "total_output_tokens": 20_000,
    "request_throughput": 2.0,
    "output_throughput": 400.0,
    "total_token_throughput": 2400.0,
    "mean_ttft_ms": 90.0,
    "median_ttft_ms": 80.0,
    "p99_ttft_ms": 300.0,
    "median_tpot_ms": 35.0,
    "median_e2el_ms": 7500.0,
}
OPTIMUM = {
    "config": {
        "name": "pytorch",
        "backend": {
            "name": "pytorch",
            "model": "org/Llama-3-8B",
            "torch_dtype": "float16",
            "device": "cuda",
            "device_ids": "0",
        },
        "scenario": {
            "input_shapes": {"batch_size": 2, "sequence_length": 256},
            "generate_kwargs": {"max_new_tokens": 33},
        },
        "environment": {"gpu": ["NVIDIA H100 80GB HBM3"], "gpu_count": 1, "torch_version": "2.6.0"},
    },
    "report": {
        "load_model": {"latency": {"unit": "s", "values": [5.0], "mean": 5.0}},
        "prefill": {
            "latency": {"unit": "s", "values": [0.04, 0.05, 0.06], "mean": 0.05, "p90": 0.058, "count": 3},
            "memory": {"unit": "MB", "max_allocated": 17000.0},
        },
        "decode": {"latency": {"unit": "s", "values": [0.64, 0.64, 0.64]}},
        "per_token": {"latency": {"unit": "s", "values": [0.02]}},
    },
}
INFERENCEX = {
    "hw": "h200",
    "conc": 32,
    "image": "vllm:1",
    "model": "llama-3-70b",
    "framework": "vllm",
    "precision": "bf16",
    "isl": 1024,
    "osl": 1024,
    "is_multinode": False,
    "tp": 4,
    "ep": 1,
    "tput_per_gpu": 500.0,
    "output_tput_per_gpu": 250.0,
    "median_ttft": 0.2,
    "median_tpot": 0.03,
    "p99_ttft": 0.9,
    "std_intvty": 1.0,
    "p99_intvty": 20.0,
}
MAXTEXT = {
    "prefill": {
        "64": {"time_in_ms": 8.0, "tflops_per_sec_per_device": 50.0},
        "1024": {"time_in_ms": 40.0, "tflops_per_sec_per_device": 90.0},
    },
    "autoregressive": {"step_in_ms": 20.0, "bw_per_device_GB_per_second": 700.0},
}
GIVEN = "model=llama-3-8b hw=h100-80gb num_chips=1 batch_size=8 input_len=32 output_len=128 weight_dtype=bfloat16"


@pytest.fixture
def run(tmp_path):
    """Write a file's content, import it with further words, and return the store's rows."""

    def call(content, words=""):
        path = tmp_path / "file.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        line = [f"data={path}", f"results_dir={tmp_path / 'results'}", *words.split()]
        _, settings = parse("import", line, import_.KEYS, import_.VERBS)
        assert import_.main(None, settings) == 0
        return Store(tmp_path / "results").load()

    return call


def stored(tmp_path):
    return Store(tmp_path / "results").parts() if (tmp_path / "results").exists() else []


def test_every_importer_is_a_format():
    modules = [import_module(f"bench.importers.{each.name}") for each in iter_modules(importers.__path__)]
    readers = {module.__name__ for module in modules if hasattr(module, "matches")}
    assert readers == {each.matches.__module__ for each in FORMATS.values()}


def test_vllm_latency_is_a_generate_row_of_its_median(run):
    [row] = run(LATENCY, GIVEN)
    assert (row.source, row.engine, row.system, row.phase, row.valid) == (
        "published",
        "imported",
        "vllm",
        "generate",
        True,
    )
    assert row.latency_s == row.median == 2.0
    assert (row.n, row.samples_s) == (4, LATENCY["latencies"])
    assert row.tokens_per_s == 8 * (32 + 128) / 2.0
    assert row.mfu == pytest.approx(640 * 2 * 8.03e9 / 989e12, rel=0.01)
    assert row.ttft_s is None
    assert row.step_time_s is None
    assert row.details["file"] == "file.json"
    assert len(row.details["sha256"]) == 64
    assert row.details["unmapped"] == []
    assert (row.host, row.git_sha) == (None, None)


def test_rates_are_by_the_formula_of_every_other_row(run):
    [row] = run(LATENCY, GIVEN)
    chip = load_chip("h100-80gb")
    point = Point(
        model=load_model("llama-3-8b"),
        chip=chip,
        engine="imported",
        phase="generate",
        num_chips=1,
        batch_size=8,
        input_len=32,
        output_len=128,
        first_token="prefill",
        weight_dtype="bfloat16",
    )
    rates = derive(point, latency_s=2.0, peak_flops_per_s=chip.peak("bfloat16"), hbm_bytes_per_s=chip.hbm_bytes_per_s)
    assert {name: getattr(row, name) for name in rates} == rates


def test_vllm_latency_that_contradicts_itself_is_refused(run, tmp_path):
    with pytest.raises(ShardbenchError, match=r"file\.json: avg_latency=1\.0 must be the mean"):
        run({**LATENCY, "avg_latency": 1.0}, GIVEN)
    assert stored(tmp_path) == []


@pytest.mark.parametrize("samples", [[], [0.0], [-1.0], ["2"], [None], [float("nan")], {"a": 1}])
def test_vllm_latency_without_times_is_refused(run, tmp_path, samples):
    with pytest.raises(ShardbenchError, match=r"file\.json: latencies"):
        run({**LATENCY, "latencies": samples}, GIVEN + " format=vllm-latency")
    assert stored(tmp_path) == []


def test_what_a_file_does_not_hold_is_asked_for_by_name(run, tmp_path):
    with pytest.raises(InvalidRequest) as caught:
        run(LATENCY, "model=llama-3-8b hw=h100-80gb num_chips=1 weight_dtype=bfloat16")
    assert caught.value.key == "batch_size"
    assert "input_len, output_len" in str(caught.value)
    with pytest.raises(InvalidRequest, match=r"model=: .*file\.json does not state it"):
        run(LATENCY, GIVEN.replace("model=llama-3-8b", ""))
    assert stored(tmp_path) == []


def test_the_degrees_give_the_number_of_chips(run):
    [row] = run(LATENCY, GIVEN.replace("num_chips=1", "tensor_parallel=4 pipeline_parallel=2"))
    assert (row.num_chips, row.tensor_parallel, row.pipeline_parallel) == (8, 4, 2)


def test_the_same_file_twice_adds_nothing(run, capsys):
    assert len(run(LATENCY, GIVEN)) == 1
    assert "1 rows added" in capsys.readouterr().out
    assert len(run(LATENCY, GIVEN)) == 1
    assert "no rows added" in capsys.readouterr().out
    # Another file, or the same said to be of another point, is another row.
    assert len(run({**LATENCY, "std_latency": 0.2}, GIVEN)) == 2
    assert len(run(LATENCY, GIVEN.replace("batch_size=8", "batch_size=4"))) == 3


def test_vllm_serve_is_a_row_without_a_latency(run, capsys):
    [row] = run(SERVE, "model=llama-3-8b hw=h100-80gb num_chips=1 weight_dtype=bfloat16")
    assert (row.batch_size, row.input_len, row.output_len) == (16, 1000, 200)
    assert row.latency_s is None
    assert row.step_time_s is None
    assert row.mbu is None
    assert row.tokens_per_s == pytest.approx(2400.0)
    assert row.cost_chip_s_per_token == pytest.approx(1 / 2400)
    assert row.mfu == pytest.approx(2400 * 2 * 8.03e9 / load_chip("h100-80gb").peak("bfloat16"))
    assert (row.ttft_s, row.tpot_s) == (0.080, 0.035)
    assert not row.valid
    assert "under load" in row.invalid_reason
    assert row.details["kept"]["request_rate"] == "inf"
    assert row.details["model_name"] == "meta-llama/Meta-Llama-3-8B"
    assert {"p99_ttft_ms", "median_e2el_ms", "mean_ttft_ms", "output_throughput"} <= set(row.details["unmapped"])
    assert "not mapped: duration, mean_ttft_ms" in capsys.readouterr().out


def test_vllm_serve_lengths_that_differ_are_not_averaged(run):
    uneven = {**SERVE, "total_input_tokens": 100_050}
    words = "model=llama-3-8b hw=h100-80gb num_chips=1 weight_dtype=bfloat16"
    with pytest.raises(InvalidRequest, match=r"input_len=: .*1000\.5 tokens on average"):
        run(uneven, words)
    [row] = run(uneven, f"{words} input_len=1000")
    assert row.input_len == 1000


def test_vllm_serve_without_a_concurrency_asks_for_it(run):
    open_loop = {key: value for key, value in SERVE.items() if key != "max_concurrency"}
    with pytest.raises(InvalidRequest, match=r"batch_size=: .*in flight"):
        run(open_loop, "model=llama-3-8b hw=h100-80gb num_chips=1 weight_dtype=bfloat16")


def test_optimum_benchmark_gives_prefill_and_decode(run):
    prefill, decode = sorted(run(OPTIMUM), key=lambda row: row.phase, reverse=True)
    assert (prefill.phase, prefill.latency_s, prefill.ttft_s, prefill.n) == ("prefill", 0.05, 0.05, 3)
    assert (decode.phase, decode.input_len, decode.output_len, decode.latency_s) == ("decode", 256, 32, 0.64)
    assert decode.step_time_s == pytest.approx(0.02)
    assert (decode.model, decode.hw, decode.num_chips, decode.weight_dtype) == ("llama-3-8b", "h100-80gb", 1, "float16")
    assert decode.versions == {"torch": "2.6.0"}
    unmapped = decode.details["unmapped"]
    assert "report.per_token.latency.values" in unmapped
    assert "report.prefill.memory.max_allocated" in unmapped
    assert "report.prefill.latency.p90" not in unmapped


def test_phase_takes_one_part_of_a_file(run):
    [row] = run(OPTIMUM, "phase=prefill")
    assert row.phase == "prefill"
    with pytest.raises(InvalidRequest, match=r"phase=generate: .*use phase=decode or prefill"):
        run(OPTIMUM, "phase=generate")


def test_optimum_benchmark_with_other_units_is_refused(run, tmp_path):
    changed = json.loads(json.dumps(OPTIMUM))
    changed["report"]["decode"]["latency"]["unit"] = "ms"
    with pytest.raises(ShardbenchError, match=r"report\.decode\.latency\.unit=ms must be s"):
        run(changed)
    assert stored(tmp_path) == []


def test_optimum_benchmark_does_not_guess_devices_or_formats(run):
    changed = json.loads(json.dumps(OPTIMUM))
    del changed["config"]["backend"]["device_ids"]
    changed["config"]["environment"]["gpu_count"] = 8
    with pytest.raises(InvalidRequest, match=r"num_chips=: .*state its devices"):
        run(changed)
    quantised = json.loads(json.dumps(OPTIMUM))
    quantised["config"]["backend"]["quantization_scheme"] = "gptq"
    with pytest.raises(InvalidRequest, match=r"weight_dtype=: .*quantised"):
        run(quantised)
    slice_of_gpu = json.loads(json.dumps(OPTIMUM))
    slice_of_gpu["config"]["environment"]["gpu"] = ["NVIDIA H100 80GB HBM3 MIG 1g.10gb"]
    with pytest.raises(InvalidRequest, match=r"hw=: .*MIG"):
        run(slice_of_gpu)


def test_inferencex_is_a_row_without_a_latency_nor_reciprocals(run):
    [row] = run(INFERENCEX)
    assert (row.model, row.hw, row.num_chips, row.batch_size) == ("llama-3-70b", "h200", 4, 32)
    assert row.latency_s is None
    assert row.tokens_per_s == pytest.approx(2000.0)
    assert row.tokens_per_s_per_chip == pytest.approx(500.0)
    assert (row.ttft_s, row.tpot_s, row.valid) == (0.2, 0.03, False)
    assert {"std_intvty", "p99_intvty", "p99_ttft"} <= set(row.details["unmapped"])
    assert row.details["kept"]["image"] == "vllm:1"


def test_inferencex_in_eight_bits_asks_in_what_it_multiplied(run):
    eight = {**INFERENCEX, "precision": "fp8"}
    with pytest.raises(InvalidRequest, match=r"act_dtype=: .*activation dtype"):
        run(eight)
    [row] = run(eight, "act_dtype=float8_e4m3")
    assert row.peak_flops_per_s == load_chip("h200").peak("float8_e4m3")
    with pytest.raises(ShardbenchError, match="precision=fp4 is not supported"):
        run({**INFERENCEX, "precision": "fp4"})


def test_inferencex_over_nodes_adds_its_parts(run):
    parts = {key: value for key, value in INFERENCEX.items() if key != "tp"}
    [row] = run({**parts, "is_multinode": True, "prefill_tp": 4, "num_prefill_gpu": 4, "num_decode_gpu": 12})
    assert (row.num_chips, row.tensor_parallel) == (16, None)
    assert row.tokens_per_s == pytest.approx(16 * 500)


def test_a_list_of_entries_is_as_many_rows(run):
    twice = [INFERENCEX, INFERENCEX, {**INFERENCEX, "conc": 64}]
    rows = run(twice)
    assert len({row.point_id for row in rows}) == len(rows) == 3


def test_one_bad_entry_stores_none(run, tmp_path):
    with pytest.raises(ShardbenchError):
        run([INFERENCEX, {**INFERENCEX, "conc": 2.5}])
    assert stored(tmp_path) == []


def test_maxtext_lengths_and_step(run):
    words = "model=llama-3-8b hw=tpu-v5e num_chips=8 weight_dtype=bfloat16"
    prefills = run(MAXTEXT, f"{words} phase=prefill batch_size=1")
    assert {row.input_len: row.latency_s for row in prefills} == {64: 0.008, 1024: 0.040}
    [decode] = run(MAXTEXT, f"{words} phase=decode batch_size=96 input_len=1024")[2:]
    assert (decode.latency_s, decode.step_time_s, decode.output_len) == (0.020, 0.020, 1)
    assert decode.tokens_per_s == pytest.approx(96 / 0.020)
    assert "autoregressive.bw_per_device_GB_per_second" in decode.details["unmapped"]


def test_what_the_user_says_may_not_contradict_the_file(run, tmp_path):
    with pytest.raises(InvalidRequest, match=r"batch_size=4: differs from .*, which has 2; omit batch_size"):
        run(OPTIMUM, "batch_size=4")
    assert stored(tmp_path) == []


def test_a_point_that_cannot_be_is_refused(run):
    with pytest.raises(InvalidRequest, match="num_chips=3"):
        run(LATENCY, GIVEN.replace("num_chips=1", "num_chips=3"))
    with pytest.raises(InvalidRequest, match="weight_dtype=fp16"):
        run(LATENCY, GIVEN.replace("weight_dtype=bfloat16", "weight_dtype=fp16"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", r"is not JSON \(.*line 1\)"),
        ("", "is not JSON"),
        ("[1, 2]", "must hold a mapping or a list"),
        ("[]", "must hold a mapping or a list"),
        ('"text"', "must hold a mapping or a list"),
        ("{}", "has an unknown format"),
        ('{"avg_latency": 1}', "has an unknown format"),
    ],
)
def test_a_file_that_is_none_is_named(run, tmp_path, content, problem):
    with pytest.raises(ShardbenchError, match=problem) as caught:
        run(content, GIVEN)
    assert "file.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert stored(tmp_path) == []


def test_a_file_of_another_format_than_asked_is_refused(run):
    with pytest.raises(InvalidRequest, match=r"format=maxtext: .*is vllm-latency"):
        run(LATENCY, f"{GIVEN} format=maxtext")


def test_a_file_that_is_not_there_or_not_text(run, tmp_path):
    _, settings = parse("import", [f"data={tmp_path / 'none.json'}"], import_.KEYS, import_.VERBS)
    with pytest.raises(InvalidRequest, match="No such file"):
        import_.main(None, settings)
    binary = tmp_path / "file.bin"
    binary.write_bytes(b"\x80\x81 no text")
    _, settings = parse("import", [f"data={binary}"], import_.KEYS, import_.VERBS)
    with pytest.raises(ShardbenchError, match="not UTF-8 text"):
        import_.main(None, settings)


def test_rows_as_json_alone_on_stdout(run, capsys):
    run(OPTIMUM, "print=json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["phase"] for line in lines] == ["prefill", "decode"]


def test_several_files_in_one_command(run, tmp_path):
    for name, batch in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.json").write_text(json.dumps({**INFERENCEX, "conc": batch}), encoding="utf-8")
    words = [f"data=[{tmp_path}/a.json,{tmp_path}/b.json]", f"results_dir={tmp_path / 'results'}"]
    _, settings = parse("import", words, import_.KEYS, import_.VERBS)
    import_.main(None, settings)
    assert {row.batch_size for row in Store(tmp_path / "results").load()} == {1, 2}


@pytest.mark.parametrize("value", ["[]", "[4,8]"])
def test_a_key_takes_one_value_not_a_grid(run, tmp_path, value):
    with pytest.raises(InvalidRequest, match=r"kv_dtype=.*is not known"):
        run(LATENCY, f"{GIVEN} kv_dtype={value}")
    assert stored(tmp_path) == []


def test_any_key_of_a_point_may_be_given(run):
    [row] = run(LATENCY, f"{GIVEN} mesh_shape=[1,1,1] collectives=plain")
    assert (row.mesh_shape, row.collectives, row.first_token) == ([1, 1, 1], "plain", "prefill")
