"""What the files of other harnesses become, by hand, and what of them is refused."""

import json

import pytest
from builders.files_of_others import OTHERS, SERVED, File

from bench.cli.args import parse
from bench.cli.commands import import_
from bench.rows.store import Store
from bench.sweep.catalog import load_chip, load_model
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import Row

BY_NAME = {f"{each.name} {each.words.partition('phase=')[2]}".strip(): each for each in OTHERS}


@pytest.fixture
def rows_of(tmp_path):
    """Import a file with the user's words; the rows in the order of the file."""

    def call(path, words):
        line = [f"data={path}", f"results_dir={tmp_path / 'results'}", *words.split()]
        _, settings = parse("import", line, import_.KEYS, import_.VERBS)
        assert import_.main(None, settings) == 0
        return Store(tmp_path / "results").load()

    return call


@pytest.fixture
def imported(rows_of):
    """The rows of one of the files as it is."""

    def call(name: str) -> list[Row]:
        return rows_of(BY_NAME[name].path, BY_NAME[name].words)

    return call


@pytest.fixture
def changed(rows_of, tmp_path):
    """The rows of one of the files with some of its text changed."""

    def call(name: str, *changes: tuple[str, str], words: str | None = None) -> list[Row]:
        each = BY_NAME[name]
        text = each.path.read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / each.name
        path.write_text(text, encoding="utf-8")
        return rows_of(path, each.words if words is None else words)

    return call


@pytest.mark.parametrize("each", OTHERS, ids=lambda each: f"{each.name} {each.words[-12:]}")
def test_every_file_imports_as_its_format(rows_of, each: File):
    rows = rows_of(each.path, each.words)
    assert len(rows) >= each.results
    assert {row.details["format"] for row in rows} == {each.format}
    assert {row.status for row in rows} == {"ok"}


SERVING = (
    *("sglang_serve.jsonl", "vllm_serve.pytorch.json", "profile_export_aiperf.json", "profile_export_genai_perf.json"),
    *("guidellm.json", "llmperf_summary.json"),
)


@pytest.mark.parametrize("name", SERVING)
def test_one_load_is_one_row_whoever_measured_it(imported, name):
    """100 requests of 1000 + 200 tokens in 50 s, 16 at once: 2 requests and 2400 tokens a second."""
    row = next(row for row in imported(name) if row.load["max_concurrency"] == 16)
    assert (row.phase, row.batch_size, row.input_len, row.output_len) == ("serve", 16, 1000, 200)
    assert row.tokens_per_s == pytest.approx(2400)
    flops = 2400 * load_model("llama-3-8b").model_flops_per_token
    assert row.mfu == pytest.approx(flops / row.num_chips / load_chip("h100-80gb").peak("bfloat16"))
    assert row.load["requests_per_s"] == pytest.approx(2)
    assert row.load["output_tokens_per_s"] == pytest.approx(400)
    assert row.load["completed"] == 100
    assert row.load["ttft_s"]["median"] == row.ttft_s
    assert row.load["ttft_s"]["mean"] >= row.ttft_s > 0
    assert (row.latency_s, row.step_time_s, row.mbu) == (None, None, None)


@pytest.mark.parametrize("name", [each for each in SERVING if each != "llmperf_summary.json"])
def test_the_time_per_output_token_is_that_after_the_first(imported, name):
    row = imported(name)[0]
    assert row.tpot_s == pytest.approx(0.037)


@pytest.mark.parametrize("name", ["llmperf_summary.json", "jetstream.json"])
def test_a_time_per_token_that_counts_the_first_is_no_tpot(imported, name):
    [row] = imported(name)
    assert row.tpot_s is None
    assert "tpot_s" not in row.load
    assert row.load["latency_per_output_token_s"]["median"] in (0.037, 0.039)


@pytest.mark.parametrize("name", ["vllm_throughput.json", "sglang_offline.jsonl"])
def test_prompts_given_at_once_are_a_load_without_limit(imported, name):
    [row] = imported(name)
    assert (row.phase, row.latency_s, row.ttft_s) == ("serve", None, None)
    assert row.load["request_rate_per_s"] == "inf"
    assert row.tokens_per_s == pytest.approx(row.load["requests_per_s"] * {100: 480, 64: 1280}[row.batch_size])


def test_vllm_throughput_does_not_say_how_its_tokens_divide(imported):
    [row] = imported("vllm_throughput.json")
    assert (row.batch_size, row.input_len, row.output_len) == (100, 0, 0)
    [row] = imported("vllm_throughput.pytorch.json")[1:]
    assert (row.input_len, row.output_len, row.num_chips) == (400, 80, 2)


def test_lengths_that_the_arguments_ask_for_and_the_tokens_deny_are_not_taken(changed):
    [row] = changed("vllm_throughput.pytorch.json", ('"input_len": 400', '"input_len": 300'))
    assert (row.input_len, row.output_len) == (0, 0)


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


def test_sglang_states_its_server(imported):
    first = imported("sglang_serve.jsonl")[0]
    assert (first.tensor_parallel, first.num_chips, first.weight_dtype) == (1, 1, "bfloat16")
    assert first.origins["weight_dtype"].startswith("rule: precision of server_info.dtype")
    assert first.load["mean_concurrency"] == 15.0055


def test_lines_appended_later_add_only_their_rows(rows_of, tmp_path):
    path = tmp_path / "lines.jsonl"
    first, second = BY_NAME["sglang_serve.jsonl"].path.read_text(encoding="utf-8").splitlines()
    path.write_text(f"{first}\n{second}\n", encoding="utf-8")
    assert len(rows_of(path, SERVED)) == 2
    path.write_text(f"{first}\n{second}\n{second.replace('2.5', '3.5')}\n", encoding="utf-8")
    assert len(rows_of(path, SERVED)) == 3


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"accept_length": null', '"accept_length": 2.8', "accept_length=2.8 is the accepted length of speculative"),
        ('"output_throughput": 400.0', '"output_throughput": 800.0', "output_throughput=800 differs from 400"),
        ('"request_rate": 2.5', '"request_rate": 0.5', "request_throughput=2 is above request_rate=0.5"),
    ],
)
def test_sglang_of_another_meaning_or_in_contradiction_is_refused(changed, old, new, named):
    with pytest.raises(ShardbenchError, match=named):
        changed("sglang_serve.jsonl", (old, new))


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"speculative_algorithm": "EAGLE"}, "EAGLE is speculative decoding"),
        ({"dp_size": 2}, "dp_size=2 is several copies"),
        ({"disaggregation_mode": "decode"}, "separate chips"),
        ({"json_model_override_args": '{"num_hidden_layers": 2}'}, "changes the model"),
    ],
)
def test_a_server_of_another_meaning_is_refused(rows_of, tmp_path, setting, named):
    line = json.loads(BY_NAME["sglang_serve.jsonl"].path.read_text(encoding="utf-8").splitlines()[0])
    path = tmp_path / "line.jsonl"
    path.write_text(json.dumps({**line, "server_info": {**line["server_info"], **setting}}), encoding="utf-8")
    with pytest.raises(ShardbenchError, match=named):
        rows_of(path, SERVED)


def test_listed_requests_tell_whether_lengths_differ_and_which_failed(rows_of, tmp_path):
    line = json.loads(BY_NAME["sglang_serve.jsonl"].path.read_text(encoding="utf-8").splitlines()[0])
    lists = {"input_lens": [500, 1500] * 50, "output_lens": [200] * 100, "errors": [""] * 100}
    path = tmp_path / "line.jsonl"
    path.write_text(json.dumps({**line, **lists}), encoding="utf-8")
    [row] = rows_of(path, SERVED)
    assert (row.input_len, row.output_len, row.load["mean_input_len"]) == (0, 200, 1000)
    with pytest.raises(InvalidRequest, match=r"input_len=1000: has no one value"):
        rows_of(path, f"{SERVED} input_len=1000")
    path.write_text(json.dumps({**line, **lists, "errors": [""] * 100 + ["timeout"] * 50}), encoding="utf-8")
    assert "50 of 150 requests failed" in rows_of(path, SERVED)[-1].invalid_reason


def test_attention_copies_are_within_the_tensor_parallel_chips(changed):
    both = ('"dp_size": 1', '"dp_size": 2, "enable_dp_attention": true'), ('"tp_size": 1', '"tp_size": 4')
    row = changed("sglang_serve.jsonl", *both, words="model=llama-3-8b hw=h100-80gb num_chips=4 weight_dtype=bfloat16")[
        0
    ]
    assert (row.num_chips, row.tensor_parallel) == (4, 4)


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


def test_trtllm_bench_states_model_machine_and_formats(imported):
    [row] = imported("trtllm_bench.json")
    assert (row.hw, row.num_chips, row.tensor_parallel) == ("h100-80gb", 2, 2)
    assert (row.weight_dtype, row.kv_dtype) == ("float8_e4m3", "float8_e4m3")
    assert (row.input_len, row.output_len, row.batch_size) == (1000, 201, 100)
    assert (row.tokens_per_s, row.ttft_s, row.tpot_s) == (2402.0, 0.39, pytest.approx(0.0379))
    assert row.load["e2el_s"]["max"] == pytest.approx(8.4)
    assert row.mfu == pytest.approx(2402 * 2 * 8.03e9 / 2 / load_chip("h100-80gb").peak("float8_e4m3"), rel=0.01)


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
    assert "1 results left out" in printed
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


@pytest.mark.parametrize("unit", ["lightyears", "", "requests/sec"])
def test_a_unit_that_is_not_known_is_refused(changed, unit):
    with pytest.raises(ShardbenchError, match=r"time_to_first_token\.unit"):
        changed("profile_export_aiperf.json", ('"unit": "ms"', f'"unit": "{unit}"'))


def test_the_unit_beside_a_figure_is_read(rows_of, tmp_path):
    content = json.loads(BY_NAME["profile_export_aiperf.json"].path.read_text(encoding="utf-8"))
    metric = content["time_to_first_token"]
    content["time_to_first_token"] = {
        key: "ns" if key == "unit" else value if key == "count" else value * 1e6 for key, value in metric.items()
    }
    path = tmp_path / "profile_export_aiperf.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    [row] = rows_of(path, SERVED)
    assert row.ttft_s == pytest.approx(0.080)


def test_a_cancelled_run_is_refused(changed):
    with pytest.raises(ShardbenchError, match="was_cancelled=True is a run that was ended early"):
        changed("profile_export_aiperf.json", ('"was_cancelled": false', '"was_cancelled": true'))


def test_prompts_that_a_cache_answered_are_refused(rows_of, tmp_path):
    content = json.loads(BY_NAME["profile_export_aiperf.json"].path.read_text(encoding="utf-8"))
    path = tmp_path / "profile_export_aiperf.json"
    for tokens, refused in ((0.0, False), (64.0, True)):
        content["total_usage_prompt_cache_read_tokens"] = {"unit": "tokens", "avg": tokens}
        path.write_text(json.dumps(content), encoding="utf-8")
        if refused:
            with pytest.raises(ShardbenchError, match="are tokens of prompts that a cache answered"):
                rows_of(path, SERVED)
        else:
            assert len(rows_of(path, SERVED)) == 1


def test_the_settings_of_newer_versions_are_lists(rows_of, tmp_path):
    content = json.loads(BY_NAME["profile_export_aiperf.json"].path.read_text(encoding="utf-8"))
    warmup = {"name": "warmup", "type": "concurrency", "concurrency": 4, "exclude_from_results": True}
    profiling = {"name": "profiling", "type": "poisson", "rate": 2.5, "concurrency": 32}
    content["input_config"] = {
        "models": {"items": [{"name": "org/Llama-3-8B"}]},
        "phases": [warmup, profiling],
    }
    path = tmp_path / "profile_export_aiperf.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    [row] = rows_of(path, SERVED)
    assert (row.load["max_concurrency"], row.load["request_rate_per_s"]) == (32, 2.5)
    assert row.details["model_name"] == "org/Llama-3-8B"


def test_older_guidellm_reports_name_their_parts_otherwise(rows_of, tmp_path):
    report = json.loads(BY_NAME["guidellm.json"].path.read_text(encoding="utf-8"))
    older = []
    for each in report["benchmarks"]:
        totals = each["metrics"].pop("request_totals")
        kept = {key: each[key] for key in ("type_", "metrics", "duration")}
        args = {"args": {"strategy": each["config"]["strategy"]}, "request_totals": totals}
        older.append({**kept, **args, "worker": {"backend_model": "meta-llama/Meta-Llama-3-8B"}})
    path = tmp_path / "benchmarks.json"
    path.write_text(json.dumps({"benchmarks": older}), encoding="utf-8")
    closed, steady = rows_of(path, SERVED)
    assert (closed.load["max_concurrency"], steady.load["request_rate_per_s"]) == (16, 1.0)
    assert closed.details["model_name"] == "meta-llama/Meta-Llama-3-8B"
    assert closed.load["completed"] == 100


def test_guidellm_is_a_row_a_load(imported):
    closed, steady = imported("guidellm.json")
    assert (closed.load["max_concurrency"], steady.load["request_rate_per_s"]) == (16, 1.0)
    assert (closed.tokens_per_s, steady.tokens_per_s) == (2400.0, 1200.0)
    # p001 is the share 0.001: one in a thousand, not one in a hundred.
    assert set(closed.load["ttft_s"]) == {"mean", "median", "std", "min", "max", "p0.1", "p50", "p99", "p99.9"}


def test_llmperf_failures_make_an_invalid_row(changed):
    failing = (
        ('"results_number_errors": 0', '"results_number_errors": 5'),
        ('_requests_started": 100', '_requests_started": 105'),
    )
    [row] = changed("llmperf_summary.json", *failing)
    assert (row.valid, row.invalid_reason) == (False, "5 of 105 requests failed")


def test_jetstream_prompts_of_a_dataset_have_a_mean_and_no_one_length(imported):
    [row] = imported("jetstream.json")
    assert (row.input_len, row.output_len) == (0, 0)
    assert (row.load["mean_input_len"], row.load["mean_output_len"]) == (220.0, 200.0)
    assert row.tokens_per_s == pytest.approx(4200)


def test_jetstream_cannot_end_requests_faster_than_they_come(changed):
    """1000 requests at 5 a second take 200 s on average; they did not end in 100."""
    with pytest.raises(ShardbenchError, match=r"metrics\.request_throughput=10 is above metrics\.request_rate=5"):
        changed("jetstream.json", ('"request_rate": 10.0', '"request_rate": 5.0'))


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


def test_mlperf_server_keeps_its_verdict_and_its_percentiles(imported):
    [row] = imported("mlperf_server.txt")
    assert not row.valid
    assert "INVALID (not satisfied: Early stopping)" in row.invalid_reason
    assert (row.load["requests_per_s"], row.load["request_rate_per_s"]) == (48.74, 49.27)
    assert row.load["output_tokens_per_s"] == 410.43
    assert (row.ttft_s, row.tpot_s) == pytest.approx((0.002302022, 0.00030629))
    assert row.load["ttft_s"]["p99.9"] == pytest.approx(0.005441763)
    # How many tokens the prompts had is not in the file.
    assert (row.tokens_per_s, row.mfu, row.input_len) == (None, None, 0)


def test_mlperf_single_stream_is_one_request_at_a_time(imported):
    [row] = imported("mlperf_single_stream.txt")
    assert (row.batch_size, row.valid, row.load["scenario"]) == (1, True, "SingleStream")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("Result is : VALID", "Result is : MAYBE", "Result is=MAYBE must be VALID or INVALID"),
        ("Mode     : PerformanceOnly", "Mode     : AccuracyOnly", "Mode=AccuracyOnly is no measurement of time"),
        ("Min queries satisfied : Yes", "Min queries satisfied : NO", "Min queries is not satisfied"),
    ],
)
def test_mlperf_without_a_verdict_is_refused(changed, old, new, named):
    with pytest.raises(ShardbenchError, match=named):
        changed("mlperf_single_stream.txt", (old, new))


@pytest.mark.parametrize(
    ("content", "nearest", "lacks"),
    [
        ({"benchmark": {"metrics": {}}, "metadata": {"version": 2}}, "guidellm", "benchmark.metrics.tokens_per_second"),
        ({"n_prompt": 512, "n_gen": 0, "model_type": "llama 8B F16"}, "llama-bench", "avg_ts"),
        ({"engine": {"backend": "Pytorch"}, "world_info": {"tp_size": 1}}, "trtllm-bench", "request_info.num_requests"),
        ({"elapsed_time": 2.0, "num_requests": 3}, "vllm-throughput", "total_num_tokens"),
    ],
)
def test_what_is_of_no_format_is_named_beside_the_nearest(rows_of, tmp_path, content, nearest, lacks):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ShardbenchError, match=rf"the nearest is {nearest}, of which it lacks .*{lacks}.*known are "):
        rows_of(path, SERVED)


@pytest.mark.parametrize(
    "text", ["| a | b |\n|---|---|\n| 1 | 2 |\n", "a,b\n1,2\n", "MLPerf\n", "CREATE TABLE x (a);\n"]
)
def test_a_text_of_no_format_is_refused(rows_of, tmp_path, text):
    path = tmp_path / "file.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ShardbenchError, match="is not JSON"):
        rows_of(path, SERVED)
