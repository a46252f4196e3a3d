"""What a file of each harness says, cut to what a reader can check by hand."""

import json

import pytest
from builders.results_of_others import (
    GIVEN,
    INFERENCEX,
    INFERENCEX_SPLIT,
    LATENCY,
    MAXTEXT,
    ON_TPU,
    OPTIMUM,
    SERVE,
    SERVED,
    changed,
)

from bench.rows.metrics import derive
from bench.rows.store import Store
from bench.sweep.catalog import load_chip, load_model
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.point import Point


def stored(tmp_path):
    return Store(tmp_path / "results").parts() if (tmp_path / "results").exists() else []


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
    [row] = run(LATENCY, f"{GIVEN} kv_dtype=bfloat16")
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
    assert row.kv_dtype == "bfloat16"
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


def test_the_degrees_give_the_number_of_chips(run):
    [row] = run(LATENCY, GIVEN.replace("num_chips=1", "tensor_parallel=4 pipeline_parallel=2"))
    assert (row.num_chips, row.tensor_parallel, row.pipeline_parallel) == (8, 4, 2)


def test_vllm_serve_is_a_server_and_no_batch(run, capsys):
    [row] = run(SERVE, SERVED)
    assert (row.phase, row.batch_size, row.input_len, row.output_len) == ("serve", 16, 1000, 200)
    assert (row.latency_s, row.step_time_s, row.mbu, row.samples_s) == (None, None, None, None)
    assert row.tokens_per_s == 2400.0
    assert row.cost_chip_s_per_token == pytest.approx(1 / 2400)
    assert row.mfu == pytest.approx(2400 * 2 * 8.03e9 / load_chip("h100-80gb").peak("bfloat16"))
    assert (row.ttft_s, row.tpot_s, row.valid) == (pytest.approx(0.080), pytest.approx(0.035), True)
    assert row.load["ttft_s"] == pytest.approx({"mean": 0.09, "median": 0.08, "std": 0.04, "p99": 0.3})
    assert row.load["e2el_s"] == pytest.approx({"median": 7.5})
    counts = {key: row.load[key] for key in ("requests", "completed", "failed", "max_concurrency", "duration_s")}
    assert counts == {"requests": 100, "completed": 100, "failed": 0, "max_concurrency": 16, "duration_s": 50.0}
    assert (row.load["request_rate_per_s"], row.load["requests_per_s"]) == ("inf", 2.0)
    assert row.load["output_tokens_per_s"] == 400.0
    assert row.details["model_name"] == "meta-llama/Meta-Llama-3-8B"
    assert row.origins["load.ttft_s.p99"] == "file: p99_ttft_ms"
    assert row.origins["batch_size"] == "rule: most_in_flight of max_concurrency, num_prompts"
    assert "not mapped" not in capsys.readouterr().out


def test_vllm_serve_lengths_that_differ_are_not_averaged(run):
    uneven = {**SERVE, "total_input_tokens": 100_050}
    [row] = run(uneven, SERVED)
    assert (row.input_len, row.output_len) == (0, 200)
    assert row.load["mean_input_len"] == 1000.5
    with pytest.raises(InvalidRequest, match=r"input_len=1000: has no one value .*1000\.5 tokens on average"):
        run(uneven, f"{SERVED} input_len=1000")
    # Two lengths whose mean is a whole number, which the list of single requests tells.
    listed = {**SERVE, "input_lens": [900] * 50 + [1100] * 50}
    row = run(listed, SERVED)[-1]
    assert (row.input_len, row.load["mean_input_len"]) == (0, 1000.0)


def test_vllm_serve_without_a_limit_may_have_all_requests_in_flight(run):
    open_loop = {key: value for key, value in SERVE.items() if key != "max_concurrency"}
    [row] = run(open_loop, SERVED)
    assert (row.batch_size, row.origins["batch_size"]) == (100, "rule: most_in_flight of num_prompts")


def test_optimum_benchmark_gives_prefill_and_decode(run):
    prefill, decode = sorted(run(OPTIMUM), key=lambda row: row.phase, reverse=True)
    assert (prefill.phase, prefill.latency_s, prefill.ttft_s, prefill.n) == ("prefill", 0.05, 0.05, 3)
    assert (decode.phase, decode.input_len, decode.output_len, decode.latency_s) == ("decode", 256, 32, 0.64)
    assert decode.step_time_s == pytest.approx(0.02)
    assert (decode.model, decode.hw, decode.num_chips, decode.weight_dtype) == ("llama-3-8b", "h100-80gb", 1, "float16")
    assert decode.versions == {"torch": "2.6.0"}
    assert decode.details["kept"]["report.prefill.memory.max_allocated"] == 17000.0
    assert decode.details["unmapped"] == []
    assert decode.origins["output_len"].startswith("rule: steps_after_first of config.scenario.generate_kwargs.max_new")


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


def test_optimum_benchmark_does_not_take_seen_devices_for_used(run):
    seen = changed(changed(OPTIMUM, "config.backend.device_ids", None), "config.environment.gpu_count", 8)
    row = run(seen)[0]
    assert (row.num_chips, row.origins["num_chips"].partition(" of ")[0]) == (1, "rule: one_gpu")
    # Other backends have parallelism of their own.
    with pytest.raises(InvalidRequest, match=r"num_chips=: .*not those that were used"):
        run(changed(seen, "config.backend.name", "vllm"))
    with pytest.raises(ShardbenchError, match=r"device_map=auto spreads layers"):
        run(changed(seen, "config.backend.device_map", "auto"))
    with pytest.raises(ShardbenchError, match=r"nproc_per_node=4 are several processes"):
        run(changed(OPTIMUM, "config.launcher.nproc_per_node", 4))
    slice_of_gpu = changed(OPTIMUM, "config.environment.gpu", ["NVIDIA H100 80GB HBM3 MIG 1g.10gb"])
    with pytest.raises(InvalidRequest, match=r"hw=: .*MIG"):
        run(slice_of_gpu)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("config.backend.quantization_scheme", "gptq"),
        ("config.backend.quantization_config", {"bits": 4}),
        *(
            ("config.backend.model", f"org/Llama-3-8B-{name}")
            for name in ("AWQ", "GPTQ-Int4", "FP8", "bnb-4bit", "w4a16")
        ),
    ],
)
def test_the_dtype_of_a_quantised_checkpoint_is_asked_for(run, path, value):
    with pytest.raises(InvalidRequest, match=r"weight_dtype=: .*quantised"):
        run(changed(OPTIMUM, path, value), "model=llama-3-8b")
    # torch_dtype is that of no weight of it; what it multiplies in, nobody states.
    row = run(changed(OPTIMUM, path, value), "model=llama-3-8b weight_dtype=int4")[0]
    assert (row.weight_dtype, row.act_dtype, row.mfu, row.peak_flops_per_s) == ("int4", "", None, None)


def test_a_generation_that_may_end_earlier_has_no_length(run):
    with pytest.raises(InvalidRequest, match=r"output_len=: .*may end earlier"):
        run(changed(OPTIMUM, "config.scenario.generate_kwargs.min_new_tokens", 2))


def test_inferencex_is_a_server_without_reciprocals(run):
    [row] = run(INFERENCEX)
    assert (row.model, row.hw, row.num_chips, row.phase, row.batch_size) == ("llama-3-70b", "h200", 4, "serve", 32)
    assert (row.tensor_parallel, row.pipeline_parallel) == (4, 1)
    assert row.latency_s is None
    assert row.tokens_per_s == pytest.approx(2000.0)
    assert row.tokens_per_s_per_chip == pytest.approx(500.0)
    assert (row.ttft_s, row.tpot_s, row.valid) == (0.2, 0.03, True)
    assert row.load["tpot_s"] == {"mean": 0.03, "median": 0.03, "p99.9": 0.05}
    assert row.details["unmapped"] == ["p99_intvty", "std_intvty"]
    assert row.details["kept"]["image"] == "vllm:1"


def test_inferencex_in_eight_bits_has_an_mfu_once_its_activations_are_stated(run):
    eight = {**INFERENCEX, "precision": "fp8"}
    [row] = run(eight)
    assert (row.weight_dtype, row.act_dtype, row.mfu) == ("float8_e4m3", "", None)
    assert row.details["unstated"] == ["act_dtype", "kv_dtype", "partitioner"]
    row = run(eight, "act_dtype=float8_e4m3")[-1]
    assert row.peak_flops_per_s == load_chip("h200").peak("float8_e4m3")
    with pytest.raises(ShardbenchError, match="precision=fp4 is not supported"):
        run({**INFERENCEX, "precision": "fp4"})


def test_inferencex_over_nodes_adds_its_parts(run):
    [row] = run(INFERENCEX_SPLIT)
    assert (row.num_chips, row.tensor_parallel) == (16, None)
    assert row.tokens_per_s == pytest.approx(2000)
    assert (row.load["input_tokens_per_s"], row.load["output_tokens_per_s"]) == pytest.approx((1000, 1000))
    with pytest.raises(ShardbenchError, match=r"conc=32 is fewer than the 60\.5 requests in flight"):
        run({**INFERENCEX_SPLIT, "num_decode_gpu": 24})
    with pytest.raises(ShardbenchError, match=r"tput_per_gpu, num_prefill_gpu, num_decode_gpu=3500 differs from 3000"):
        run({**INFERENCEX_SPLIT, "num_decode_gpu": 24, "mean_e2el": None})
    # Some servers split nothing and still span nodes: their GPUs are all counted as those of the prefill.
    whole = {**INFERENCEX_SPLIT, "disagg": False, "num_prefill_gpu": 16, "num_decode_gpu": 0}
    row = run({**whole, "tput_per_gpu": 125.0, "input_tput_per_gpu": 62.5, "output_tput_per_gpu": 62.5})[-1]
    assert (row.num_chips, row.tokens_per_s) == (16, 2000.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [("dcp_size", 2), ("pcp_size", 2), ("spec_decoding", "mtp"), ("prefill_hw", "b200"), ("decode_hw", "h100")],
)
def test_inferencex_with_another_meaning_is_refused_by_name(run, tmp_path, key, value):
    with pytest.raises(ShardbenchError, match=rf"{key}={value} is "):
        run({**INFERENCEX, key: value})
    assert stored(tmp_path) == []


def test_maxtext_reads_one_prompt_a_call_and_decodes_its_batch(run):
    prefills = run(MAXTEXT, f"{ON_TPU} phase=prefill")
    assert {row.input_len: (row.latency_s, row.batch_size) for row in prefills} == {64: (0.008, 1), 1024: (0.040, 1)}
    [decode] = run(MAXTEXT, f"{ON_TPU} phase=decode input_len=1024")[2:]
    assert (decode.latency_s, decode.step_time_s, decode.output_len) == (0.020, 0.020, 1)
    assert (decode.batch_size, decode.tokens_per_s) == (96, pytest.approx(96 / 0.020))


def test_one_batch_size_is_not_that_of_both_phases(run, tmp_path):
    unstated = {"prefill": MAXTEXT["prefill"], "autoregressive": {"step_in_ms": 20.0}}
    with pytest.raises(InvalidRequest, match=r"batch_size=96: differs from .*one_prompt_a_call.*phase=prefill"):
        run(unstated, f"{ON_TPU} batch_size=96 input_len=1024")
    with pytest.raises(InvalidRequest, match=r"batch_size=: .*global batch of a decode step"):
        run(unstated, f"{ON_TPU} phase=decode input_len=1024")
    assert stored(tmp_path) == []
    [decode] = run(unstated, f"{ON_TPU} phase=decode input_len=1024 batch_size=96")
    assert decode.origins["batch_size"] == "user: batch_size"
