"""Servers under load that other harnesses measured, by hand, and what of them is refused."""

import datetime
import json

import pytest
from builders.files_of_others import BY_NAME, OTHERS, SERVED, File
from builders.results_of_others import SERVE

from bench.sweep.catalog import load_chip, load_model
from engines.core.errors import InvalidRequest, ShardbenchError


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


def test_newer_aiperf_divides_by_the_time_of_the_whole_run(rows_of, tmp_path):
    """From start_time to end_time, which is longer than from the first request to the last answer."""
    content = json.loads(BY_NAME["profile_export_aiperf.json"].path.read_text(encoding="utf-8"))
    spanned_s = content["request_count"]["avg"] / content["request_throughput"]["avg"]
    content["benchmark_duration"] = {"unit": "sec", "avg": spanned_s * 0.97}
    path = tmp_path / "profile_export_aiperf.json"
    content |= {"start_time": None, "end_time": None}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ShardbenchError, match=r"request_throughput\.avg=.* differs from"):
        rows_of(path, SERVED)
    begin = datetime.datetime(2026, 11, 27, 1, 0, 0)
    end = begin + datetime.timedelta(seconds=spanned_s)
    path.write_text(json.dumps({**content, "start_time": begin.isoformat(), "end_time": end.isoformat()}), "utf-8")
    [row] = rows_of(path, SERVED)
    assert row.load["duration_s"] == pytest.approx(spanned_s)
    assert row.origins["load.duration_s"] == "file: start_time, end_time"


@pytest.mark.parametrize(("rate", "fits"), [(1.996, True), (1.97, False)])
def test_even_arrivals_end_in_one_interval_less_than_there_are_requests(rows_of, tmp_path, rate, fits):
    """100 requests at 1.996 a second are sent in 99 intervals, 49.6 s, and may end in 50 s; at 1.97 they are not."""
    path = tmp_path / "serve.json"
    path.write_text(json.dumps({**SERVE, "request_rate": rate, "burstiness": 1e6}), encoding="utf-8")
    if fits:
        [row] = rows_of(path, SERVED)
        assert row.load["requests_per_s"] == 2.0
    else:
        with pytest.raises(ShardbenchError, match=r"is above request_rate=1\.97"):
            rows_of(path, SERVED)
