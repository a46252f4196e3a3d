"""What single harnesses say of a served load: TensorRT-LLM's, guidellm, LLMPerf, JetStream and MLPerf."""

import json

import pytest
from builders.files_of_others import BY_NAME, SERVED

from bench.sweep.catalog import load_chip
from engines.core.errors import ShardbenchError


def test_trtllm_bench_states_model_machine_and_formats(imported):
    [row] = imported("trtllm_bench.json")
    assert (row.hw, row.num_chips, row.tensor_parallel) == ("h100-80gb", 2, 2)
    assert (row.weight_dtype, row.kv_dtype) == ("float8_e4m3", "float8_e4m3")
    assert (row.input_len, row.output_len, row.batch_size) == (1000, 201, 100)
    assert (row.tokens_per_s, row.ttft_s, row.tpot_s) == (2402.0, 0.39, pytest.approx(0.0379))
    assert row.load["e2el_s"]["max"] == pytest.approx(8.4)
    assert row.mfu == pytest.approx(2402 * 2 * 8.03e9 / 2 / load_chip("h100-80gb").peak("float8_e4m3"), rel=0.01)


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
