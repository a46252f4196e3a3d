"""A client puts a server under load: the row, the rate under limits, and every way in which it goes wrong."""

import dataclasses
import socket
from types import SimpleNamespace

import pytest
from builders.points import point as build_point
from served_point import point, row_of

from bench.run.again import requested_point, words
from bench.run.under_load import LoadRun, is_under
from engines.core.errors import InvalidRequest

KNEE = {"request_rate_per_s": None, "ttft_limit_s": 0.15, "num_requests": 1000}


def test_a_rate_makes_a_row_of_the_clients_own_figures(serving):
    engine = serving()
    row = row_of(engine, point(tpot_limit_s=0.02, ttft_limit_s=0.06))
    assert (row.status, row.valid, row.invalid_reason) == ("ok", True, None)
    # 200 requests, the last of which comes after 199/20 s and takes 0.12 s.
    assert row.load["duration_s"] == pytest.approx(199 / 20 + 0.12)
    assert row.tokens_per_s == pytest.approx(200 * (32 + 8) / (199 / 20 + 0.12))
    assert row.tokens_per_s_per_chip == pytest.approx(row.tokens_per_s / 2)
    assert row.cost_chip_s_per_token == pytest.approx(2 / row.tokens_per_s)
    assert (row.ttft_s, row.tpot_s) == (pytest.approx(0.05), pytest.approx(0.01))
    assert row.load["goodput_requests_per_s"] == pytest.approx(row.load["requests_per_s"])
    # No time of a batch, so that nothing takes it for one.
    assert (row.latency_s, row.step_time_s, row.samples_s) == (None, None, None)
    assert (row.request_rate_per_s, row.num_requests, row.chosen) == (20.0, 200, [])
    assert row.details["timed_by"] == "vllm bench serve"
    assert (row.details["server_model"], row.details["server_version"]) == ("stand-in", "1.2.3")
    assert row.program_id == engine.program_id(point(tpot_limit_s=0.02, ttft_limit_s=0.06))


def test_the_largest_rate_is_the_one_that_the_law_of_the_server_gives(serving):
    """4 requests in 0.12 s are 33.3 a second. Above, request n waits n · (0.03 − 1/rate), of 990 at most 0.1 s."""
    row = row_of(serving(), point(**KNEE))
    knee = 1 / (0.03 - 0.1 / 990)
    assert (row.status, row.valid) == ("ok", True)
    assert knee / 1.06 <= row.request_rate_per_s <= knee * 1.005
    assert row.chosen == ["request_rate_per_s"]
    tried = row.details["rates_tried"]
    assert [each["request_rate_per_s"] for each in tried[:3]] == [10.0, 20.0, 40.0]
    assert [each["under_the_limits"] for each in tried[:3]] == [True, True, False]
    assert row.load["request_rate_per_s"] == pytest.approx(row.request_rate_per_s)


def test_the_command_that_asks_again_asks_the_same(serving, server):
    """What the engine chose is left to it, and what the user set is set again."""
    engine = serving(system="SGLang 0.5", max_runs=9)
    row = row_of(engine, point(**{**KNEE, "num_requests": None}))
    asked = words(row)
    assert {"ttft_limit_s=0.15", f"engine.url={server}", "engine.system=SGLang 0.5", "engine.max_runs=9"} <= set(asked)
    assert not any(each.startswith(("request_rate_per_s", "num_requests", "engine.served_model")) for each in asked)
    assert requested_point(row).fingerprint("x") == point(**{**KNEE, "num_requests": None}).fingerprint("x")


def test_a_limit_that_no_rate_meets_says_how_far_it_went(serving):
    row = row_of(serving(max_runs=3), point(**{**KNEE, "ttft_limit_s": 0.04}))
    assert row.status == "failed"
    assert row.error.startswith(
        "ttft_limit_s=0.04: fewer than 0.99 of the requests were within, down to 2.5 requests/s"
    )


def test_a_limit_that_every_rate_meets_makes_an_invalid_row(serving):
    row = row_of(serving(max_runs=2, first_rate_per_s=1.0), point(**{**KNEE, "num_requests": 50}))
    assert (row.status, row.valid, row.request_rate_per_s) == ("ok", False, 2.0)
    assert row.invalid_reason.startswith("all rates up to 2 requests/s were under the limits")


def test_requests_in_flight_may_be_bounded_in_place_of_a_rate(serving):
    """Two at a time, 0.12 s each: 16.7 a second."""
    row = row_of(serving(), point(request_rate_per_s=None, batch_size=2))
    assert row.valid
    assert row.load["requests_per_s"] == pytest.approx(2 / 0.12)
    assert (row.batch_size, row.request_rate_per_s, row.load["request_rate_per_s"]) == (2, None, "inf")


@pytest.mark.parametrize(
    ("mode", "status", "said"),
    [
        ("half", "ok", "100 of 200 requests failed"),
        ("all", "failed", "all 200 requests failed: connection reset"),
        ("slow", "ok", "the client sent 10 of 20 requests/s; use a faster client"),
        ("short", "ok", "requests had 4 tokens on average and output_len=8"),
        ("crash", "failed", "vllm_serve ended with exit code 1; its output ends with: Traceback ... ValueError: token"),
        ("silent", "failed", "vllm bench serve wrote no readable serve.json and printed nothing"),
        ("garbage", "failed", "vllm bench serve wrote no readable serve.json"),
    ],
)
def test_what_goes_wrong_has_a_status_and_a_sentence(serving, monkeypatch, mode, status, said):
    monkeypatch.setenv("STAND_IN", mode)
    of = point(output_len=16) if mode == "short" else point()
    row = row_of(serving(), of)
    assert (row.status, row.valid) == (status, False)
    assert said.replace("4 tokens on average and output_len=8", "8 tokens on average and output_len=16") in (
        row.error or row.invalid_reason
    )


def test_a_server_that_is_down_or_has_another_model_is_named(serving):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        row = row_of(serving(url=url), point())
    assert row.status == "failed"
    assert row.error == (
        f"engine.url={url}: no server answers there (Connection refused); start it, or give the address of another"
    )
    row = row_of(serving(served_model="llama"), point())
    assert row.status == "unsupported"
    assert row.error.endswith("does not have it; use one of its models: stand-in")


def test_a_client_that_is_not_installed_is_named(serving):
    row = row_of(serving(program="/nowhere/vllm"), point())
    assert (row.status, row.error) == (
        "unsupported",
        "/nowhere/vllm is not installed on this machine; install it, or give its path",
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"phase": "decode", "batch_size": 2}, "request_rate_per_s=20.0: is of a server under load and phase=decode"),
        (
            {"phase": "decode", "batch_size": 2, "request_rate_per_s": None, "num_requests": None},
            "phase=decode: is no load",
        ),
        ({"engine": "jax", "batch_size": 8}, "phase=serve: is a server under load and engine=jax runs batches"),
        ({**KNEE, "batch_size": 8}, "batch_size=8: bounds the requests in flight"),
        ({"request_rate_per_s": None}, "request_rate_per_s=auto: is no rate"),
        ({"output_len": 0}, "output_len=0: is no length"),
        ({"output_len": 1, "tpot_limit_s": 0.1}, "tpot_limit_s=0.1: is of tokens after the first"),
        ({"ttft_limit_s": 0.0}, r"ttft_limit_s=0.0: must be a number > 0"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(changes, said):
    with pytest.raises(InvalidRequest) as refused:
        point(**{"batch_size": 0, **changes}).check()
    assert str(refused.value).startswith(said)


def test_a_point_without_a_load_has_the_fingerprint_that_it_had():
    static = build_point(
        model="tiny", hw="cpu", engine="jax", phase="decode", num_chips=2, batch_size=2, input_len=32, output_len=8
    )
    assert static.fingerprint("x") == dataclasses.replace(static, ttft_limit_s=None).fingerprint("x")
    assert "ttft_limit_s" not in {name for name, value in static.axes().items() if value is not None}


def run_with(**load):
    known = {name: SimpleNamespace(value=value) for name, value in load.items()}
    result = SimpleNamespace(load=known, point={}, invalid_reason=None)
    return LoadRun(result=result, requests=100, requests_per_s=1.0, sent_per_s=None, failed=None)


@pytest.mark.parametrize(
    ("load", "under"),
    [
        ({"goodput_requests_per_s": 1.98, "requests_per_s": 2.0, "completed": 100}, True),
        ({"goodput_requests_per_s": 1.96, "requests_per_s": 2.0, "completed": 100}, False),
        # All that were answered were in time, and two of a hundred were not answered.
        ({"goodput_requests_per_s": 1.96, "requests_per_s": 1.96, "completed": 98}, False),
        ({"ttft_s.p99": 0.1, "completed": 100}, True),
        ({"ttft_s.p99": 0.11, "completed": 100}, False),
        ({"ttft_s.p99": 0.1, "completed": 98}, False),
    ],
)
def test_a_share_of_all_that_was_sent_has_to_be_in_time(load, under):
    assert is_under(run_with(**load), point(ttft_limit_s=0.1), 0.99) is under
