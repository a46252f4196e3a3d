"""Files with one fault each, of the kinds that people have: each imports right, or is refused in one sentence.

The keys and their meaning are those of vLLM's `bench serve`, of optimum-benchmark and of InferenceX.
"""

import json

import pytest
from builders.results_of_others import INFERENCEX, INFERENCEX_SPLIT, MAXTEXT, ON_TPU, OPTIMUM, SERVE, SERVED, changed

from bench.cli.args import parse
from bench.cli.commands import import_
from bench.rows.store import Store
from engines.core.errors import ShardbenchError

FEW = {"num_prompts": 8, "completed": 8, "total_input_tokens": 8000, "total_output_tokens": 1600, "duration": 4.0}
PACED = {"request_rate": 1.0, "max_concurrency": 256, "max_concurrent_requests": 5}
OLD = {"backend": "tgi", "best_of": 1, "use_beam_search": False, "input_throughput": 2000.0, "version": "N/A"}
ONE = {"total_output_tokens": 100, "output_throughput": 2.0, "total_token_throughput": 2002.0}
NO_SECOND_TOKEN = {f"{each}_tpot_ms": 0.0 for each in ("mean", "median", "std", "p99")}


@pytest.fixture
def run(tmp_path):
    def call(content, words=""):
        path = tmp_path / "file.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        line = [f"data={path}", f"results_dir={tmp_path / 'results'}", *words.split()]
        _, settings = parse("import", line, import_.KEYS, import_.VERBS)
        assert import_.main(None, settings) == 0
        return Store(tmp_path / "results").load()

    return call


@pytest.mark.parametrize(
    ("content", "words", "sentence"),
    [
        ({**SERVE, "total_token_throughput": 400.0}, SERVED, "total_token_throughput=400 differs from 2400"),
        ({**SERVE, "request_throughput": 4.0}, SERVED, "request_throughput=4 differs from 2"),
        ({**SERVE, "completed": 200}, SERVED, "differs from|is above num_prompts"),
        ({**SERVE, "median_ttft_ms": 400.0}, SERVED, "median_ttft_ms=0.4 is above p99_ttft_ms"),
        ({**SERVE, "mean_tpot_ms": 355.0}, SERVED, "median_tpot_ms=0.035 cannot be with the mean"),
        ({**SERVE, "mean_e2el_ms": 9000.0}, SERVED, "max_concurrency=16 is fewer than the 18 requests in flight"),
        ({**SERVE, "use_beam_search": True}, SERVED, "use_beam_search=True is beam search"),
        (changed(OPTIMUM, "config.scenario.generate_kwargs.num_beams", 4), "", "num_beams=4 is beam search"),
        (changed(OPTIMUM, "config.backend.peft_type", "lora"), "", "peft_type=lora is an adapter"),
        (changed(OPTIMUM, "config.backend.autocast_enabled", True), "", "autocast_enabled=True computes in another"),
        (changed(OPTIMUM, "config.backend.device_map", "auto") | {}, "", None),
        ({**INFERENCEX_SPLIT, "prefill_hw": "b200", "decode_hw": "h200"}, "", "prefill_hw=b200 is another kind of GPU"),
        ({**INFERENCEX_SPLIT, "disagg": False}, "", "disagg=False contradicts num_decode_gpu=12"),
        ({**INFERENCEX, "pp": 2}, "", "conc=32 is fewer than the"),
        (MAXTEXT, f"{ON_TPU} batch_size=96", "batch_size=96: differs from"),
    ],
)
def test_a_contradiction_or_another_meaning_is_refused(run, tmp_path, content, words, sentence):
    if sentence is None:
        # One device is listed: there is nothing to spread over.
        assert {row.num_chips for row in run(content, words)} == {1}
        return
    with pytest.raises(ShardbenchError, match=sentence):
        run(content, words)
    assert not (tmp_path / "results").exists()


def test_no_more_requests_are_in_flight_than_were_sent(run):
    rates = {"request_throughput": 2.0, "output_throughput": 400.0, "total_token_throughput": 2400.0}
    [row] = run({**SERVE, **FEW, **rates, "max_concurrency": 256, "median_e2el_ms": None}, SERVED)
    assert (row.batch_size, row.load["max_concurrency"]) == (8, 256)


def test_paced_requests_are_not_all_in_flight(run):
    paced = {**SERVE, **PACED, "request_throughput": 1.0, "duration": 100.0}
    paced |= {"output_throughput": 200.0, "total_token_throughput": 1200.0}
    [row] = run(paced, SERVED)
    assert (row.batch_size, row.load["request_rate_per_s"], row.load["peak_concurrency"]) == (5, 1.0, 5)


def test_failed_requests_make_a_row_that_is_not_valid(run):
    half = {**SERVE, "completed": 50, "failed": 50, "duration": 25.0}
    half |= {"total_input_tokens": 50_000, "total_output_tokens": 10_000}
    [row] = run(half, SERVED)
    assert (row.valid, row.invalid_reason) == (False, "50 of 100 requests failed")


def test_one_token_a_request_has_no_time_between_tokens(run):
    [row] = run({**SERVE, **ONE, **NO_SECOND_TOKEN, "median_e2el_ms": None}, SERVED)
    assert (row.output_len, row.tpot_s, row.ttft_s) == (1, None, 0.08)


def test_keys_of_older_versions(run):
    old = {key: value for key, value in SERVE.items() if key not in ("total_token_throughput", "max_concurrency")}
    [row] = run({**old, **OLD}, SERVED)
    assert (row.system, row.tokens_per_s) == ("tgi", 2400.0)
    assert row.origins["tokens_per_s"].startswith("rule: total_tokens_a_second of input_throughput, output_throughput")


def test_pipeline_stages_are_in_the_row(run):
    [row] = run({**INFERENCEX, "tp": 2, "pp": 2})
    assert (row.num_chips, row.tensor_parallel, row.pipeline_parallel) == (4, 2, 2)
