"""Static batches, prompts and steps that other harnesses timed, by hand, and what of them is refused."""

import json

import pytest
from builders.files_of_others import BY_NAME

from bench.cli.args import parse
from bench.cli.commands import import_
from bench.rows.store import Store
from engines.core.errors import InvalidRequest, ShardbenchError


def test_vllm_ci_records_hold_the_arguments_of_the_command(imported):
    [row] = imported("vllm_latency.pytorch.json")
    assert (row.phase, row.batch_size, row.input_len, row.output_len) == ("generate", 8, 32, 128)
    assert (row.num_chips, row.tensor_parallel, row.weight_dtype) == (2, 2, "bfloat16")
    assert (row.latency_s, row.n, row.tokens_per_s) == (2.0, 4, 8 * 160 / 2.0)
    assert row.origins["batch_size"] == "file: benchmark.extra_info.args.batch_size"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"use_beam_search": false', '"use_beam_search": true', "use_beam_search=True is beam search"),
        ('"n": 1', '"n": 2', "n=2 samples several"),
        ('"speculative_config": null', '"speculative_config": "eagle"', "speculative_config=eagle is speculative"),
        ('"data_parallel_size": 1', '"data_parallel_size": 2', "data_parallel_size=2 is several copies"),
        ('"dtype": "bfloat16"', '"dtype": "fp6"', "dtype=fp6 is a number format that no row has"),
    ],
)
def test_arguments_that_change_the_meaning_are_refused(changed, old, new, named):
    with pytest.raises(ShardbenchError, match=named):
        changed("vllm_latency.pytorch.json", (old, new))


def test_a_list_of_records_of_two_runs_is_two_rows(rows_of, tmp_path):
    records = json.loads(BY_NAME["vllm_throughput.pytorch.json"].path.read_text(encoding="utf-8"))
    path = tmp_path / "both.pytorch.json"
    path.write_text(json.dumps([*records, *records]), encoding="utf-8")
    assert len(rows_of(path, BY_NAME["vllm_throughput.pytorch.json"].words)) == 2


def test_sglang_one_batch_is_a_static_batch(imported):
    generate, prefill, decode = imported("sglang_one_batch.jsonl")
    assert (generate.phase, generate.latency_s, generate.ttft_s) == ("generate", 2.0, 0.4)
    assert generate.tpot_s == pytest.approx(1.6 / 127)
    assert generate.tokens_per_s == 4 * (512 + 128) / 2.0
    assert (prefill.phase, prefill.latency_s, prefill.tokens_per_s) == ("prefill", 0.4, 4 * 512 / 0.4)
    assert (decode.phase, decode.input_len, decode.output_len) == ("decode", 512, 127)
    assert decode.latency_s == pytest.approx(1.6)
    assert decode.origins["latency_s"] == "rule: rest_of_total of total_latency, prefill_latency"


def test_output_throughput_of_either_version_is_checked(changed):
    with pytest.raises(ShardbenchError, match=r"output_throughput=256 differs from 320"):
        changed("sglang_one_batch_server.jsonl", ('"output_throughput": 320.0', '"output_throughput": 256.0'))
    older = ('"input_throughput": 5120.0, ', ""), ('"last_ttft": 0.4, ', ""), ("320.0", "256.0")
    [row] = changed("sglang_one_batch_server.jsonl", *older)
    assert (row.latency_s, row.ttft_s) == (2.0, None)


def test_weights_of_four_bits_are_not_what_the_user_says_of_sixteen(changed):
    four = ('"quantization": "FP8"', '"quantization": "W4A16_AWQ"')
    with pytest.raises(InvalidRequest, match=r"weight_dtype=: .*W4A16_AWQ is no number format of a row by itself"):
        changed("trtllm_bench.json", four)
    given = "model=llama-3-8b act_dtype=bfloat16 weight_dtype="
    for dtype in ("bfloat16", "int8"):
        with pytest.raises(InvalidRequest, match=rf"weight_dtype={dtype}: .*4 bits a weight"):
            changed("trtllm_bench.json", four, words=f"{given}{dtype}")
    [row] = changed("trtllm_bench.json", four, words=f"{given}int4")
    assert row.origins["weight_dtype"] == "user: weight_dtype"


LLAMA = ("llama_bench.json", "llama_bench.jsonl", "llama_bench.csv", "llama_bench.sql", "llama_bench.md")


@pytest.mark.parametrize("name", LLAMA)
def test_llama_bench_is_the_same_in_every_output(imported, name):
    prefill, empty, deep, both = imported(name)
    shapes = [(row.phase, row.batch_size, row.input_len, row.output_len) for row in (prefill, empty, deep, both)]
    assert shapes == [
        ("prefill", 1, 512, 0),
        ("decode", 1, 0, 128),
        ("decode", 1, 4096, 128),
        ("generate", 1, 512, 128),
    ]
    latencies = [row.latency_s for row in (prefill, empty, deep, both)]
    # The table has the mean rate to two decimals, whose reciprocal is not quite the mean time.
    assert latencies == pytest.approx([0.064, 1.6, 1.8, 1.664], rel=1e-3)
    assert deep.step_time_s == pytest.approx(1.8 / 128, rel=1e-3)
    assert (prefill.weight_dtype, prefill.num_chips, both.first_token) == ("float16", 1, "decode")


def test_llama_bench_samples_give_the_median(imported):
    assert imported("llama_bench.json")[0].samples_s == pytest.approx([0.063, 0.064, 0.065])
    assert imported("llama_bench.csv")[-1].n is None


QUANTISED = (
    ('"model_type": "llama 8B F16"', '"model_type": "llama 8B Q4_K - Medium"'),
    ('"model_size": 16060522496', '"model_size": 4912898304'),
)


def test_blocks_with_scales_are_no_format_unless_the_user_says_which(changed):
    with pytest.raises(InvalidRequest, match=r"weight_dtype=: .*Q4_K is blocks of integers with scales"):
        changed("llama_bench.json", *QUANTISED)
    given = "model=llama-3-8b act_dtype=float16 weight_dtype="
    with pytest.raises(InvalidRequest, match=r"weight_dtype=float16: is 16 bits .*4\.89 bits a weight"):
        changed("llama_bench.json", *QUANTISED, words=f"{given}float16")
    assert changed("llama_bench.json", *QUANTISED, words=f"{given}int4")[0].weight_dtype == "int4"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ((('"model_size": 16060522496', '"model_size": 521555200'),), r"model_size=521555200 is 0\.52 bits a weight"),
        ((('"n_gpu_layers": 99', '"n_gpu_layers": 16'),), r"n_gpu_layers=16 leaves some of the 32 layers"),
        ((('"n_gpu_layers": 99', '"n_gpu_layers": 0'),), "n_gpu_layers=0 keeps every layer on the CPU"),
        ((('"n_cpu_moe": 0', '"n_cpu_moe": 8'),), "n_cpu_moe=8 keeps experts outside"),
        ((('"type_k": "f16"', '"type_k": "q8_0"'),), "type_k=q8_0 is a number format that no row has"),
        ((('"n_prompt": 512', '"n_prompt": 256'),), "avg_ts=8001"),
        ((('"model_n_params": 8030261248', '"model_n_params": 7030261248'),), r"model=llama-3-8b: has 8\.03e\+09"),
    ],
)
def test_llama_bench_of_another_meaning_or_in_contradiction_is_refused(changed, changes, named):
    with pytest.raises(ShardbenchError, match=named):
        changed("llama_bench.json", *changes)


def test_results_that_no_row_can_say_are_left_out_and_named(tmp_path, capsys):
    """A prompt read behind 4096 cached tokens is no prefill; the three other results of the file are rows."""
    results = json.loads(BY_NAME["llama_bench.json"].path.read_text(encoding="utf-8"))
    results[0]["n_depth"] = 4096
    path = tmp_path / "llama_bench.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    line = [f"data={path}", f"results_dir={tmp_path / 'results'}", "model=llama-3-8b"]
    _, settings = parse("import", line, import_.KEYS, import_.VERBS)
    assert import_.main(None, settings) == 3
    assert {row.phase for row in Store(tmp_path / "results").load()} == {"decode", "generate"}
    printed = capsys.readouterr().out
    assert "3 rows added" in printed
    assert "1 result left out" in printed
    assert "entry 1: n_depth=4096 reads a prompt behind tokens in the cache" in printed


def test_a_file_of_nothing_else_is_refused(changed, tmp_path):
    with pytest.raises(ShardbenchError, match=r"entry 1: dimensions\.oom=True"):
        changed("maxtext_sweep.jsonl prefill", ('"oom": "False"', '"oom": "True"'))
    assert not (tmp_path / "results").exists() or Store(tmp_path / "results").load() == []


def test_several_gpus_seen_are_not_gpus_used(changed):
    two = ('"gpu_info": "NVIDIA H100 80GB HBM3"', '"gpu_info": "NVIDIA H100 80GB HBM3, NVIDIA H100 80GB HBM3"')
    with pytest.raises(InvalidRequest, match=r"num_chips=: .*which of the devices ran"):
        changed("llama_bench.json", two)
    assert changed("llama_bench.json", two, words="model=llama-3-8b num_chips=2")[0].hw == "h100-80gb"


def test_llama_bench_without_a_gpu_ran_on_the_cpu(changed):
    row = changed("llama_bench.json", ('"backends": "CUDA"', '"backends": "CPU"'))[0]
    assert (row.hw, row.num_chips, row.origins["hw"]) == ("cpu", 1, "rule: cpu_backend of backends")


def test_maxtext_sweep_reads_one_prompt_a_prefill_and_the_global_batch_a_step(imported):
    prefills = imported("maxtext_sweep.jsonl prefill")[:2]
    assert [(row.batch_size, row.input_len, row.latency_s) for row in prefills] == [(1, 64, 0.008), (1, 1024, 0.046)]
    first, second = imported("maxtext_sweep.jsonl decode input_len=1024")[4:]
    assert (first.batch_size, first.num_chips, first.step_time_s) == (96, 4, 0.040)
    assert (second.batch_size, second.num_chips, second.step_time_s) == (48, 4, 0.020)
    assert first.tokens_per_s == pytest.approx(2400)
    assert first.origins["num_chips"].startswith("rule: chips_of_batch")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"oom": "False"', '"oom": "True"', "dimensions.oom=True is a run that did not fit"),
        ('"quantize_kvcache": "False"', '"quantize_kvcache": "True"', "quantises the cache"),
        ('"per_device_batch_size": "24"', '"per_device_batch_size": "23"', "does not divide the global batch"),
        ('"autoregressive_step_in_ms": 40.0', '"autoregressive_step_in_ms": 4.0', "second=2400 differs from 24000"),
    ],
)
def test_maxtext_sweep_of_another_meaning_or_in_contradiction_is_refused(changed, old, new, named):
    with pytest.raises(ShardbenchError, match=named):
        changed("maxtext_sweep.jsonl decode input_len=1024", (old, new))
