"""A client puts a server under load: the row, the rate under limits, and every way in which it goes wrong."""

import dataclasses
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders.points import point as build_point
from processes import wait_until_gone

from bench.measure.timing import TimingConfig
from bench.run.again import requested_point, words
from bench.run.keys import point_id
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask
from bench.run.under_load import LoadRun, is_under
from bench.run.worker import answer
from bench.sweep.catalog import load_group
from engines.core.errors import InvalidRequest
from engines.external.serving.loadgen_driver import Sender

point = partial(
    build_point,
    model="tiny",
    hw="cpu",
    engine="serving",
    phase="serve",
    num_chips=2,
    batch_size=0,
    input_len=32,
    output_len=8,
    weight_dtype="float32",
    request_rate_per_s=20.0,
    num_requests=200,
)
STAND_INS = Path(__file__).parent / "stand_ins"
KNEE = {"request_rate_per_s": None, "ttft_limit_s": 0.15, "num_requests": 1000}


@pytest.fixture(scope="module")
def server():
    """The address of a server that answers 4 requests at a time, each of 8 tokens in 0.05 + 7 · 0.01 s."""
    words = [sys.executable, str(STAND_INS / "openai_server.py"), "0", "4", "0.05", "0.01"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as started:
        yield f"http://127.0.0.1:{started.stdout.readline().strip()}"
        started.kill()


@pytest.fixture
def serving(program, server):
    """The engine with vLLM's client stood in for; keywords change its config."""

    def make(**changes):
        config = {**load_group("engine", "serving"), "program": program("vllm_serve"), "url": server}
        return make_engine({**config, "arrivals": "constant", "first_rate_per_s": 10.0, **changes})

    return make


def row_of(engine, of):
    return answer(engine, PointTask(point=of, point_id="x", source="measured", sweep=None), TimingConfig())


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


def test_other_clients_and_other_servers_are_other_questions(serving):
    """An address is not: the same server may stand elsewhere tomorrow."""
    asked = [{}, {"client": "aiperf"}, {"system": "SGLang 0.5"}, {"share": 0.9}, {"arrivals": "poisson"}]
    ids = [point_id(serving(**each), point()) for each in asked]
    assert len(set(ids)) == len(ids)
    assert point_id(serving(url="http://elsewhere:1"), point()) == ids[0]
    assert row_of(serving(system="SGLang 0.5"), point()).system == "SGLang 0.5"


def test_a_server_ends_with_the_process_that_started_it(tmp_path):
    """Whatever ends that: here it kills itself, and closes nothing."""
    noted = tmp_path / "pid"
    server = f"import os,time; open({str(noted)!r},'w').write(str(os.getpid())); time.sleep(99)"
    code = (
        "import os,signal,sys,time; from pathlib import Path; from engines.host.background import BackgroundProgram\n"
        f"started = BackgroundProgram([sys.executable, '-c', {server!r}], Path({str(tmp_path)!r}))\n"
        f"while not (os.path.exists({str(noted)!r}) and open({str(noted)!r}).read()): time.sleep(0.02)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    wait_until_gone(int(noted.read_text(encoding="utf-8")))


def words_of_server(program, *more):
    return [sys.executable, program, "{port}", "4", "0.05", "0.01", *more]


def test_a_server_is_started_and_ended_with_all_its_processes(serving, program, monkeypatch, tmp_path):
    noted = tmp_path / "pid"
    code = f"import os,sys; open({str(noted)!r},'w').write(str(os.getpid())); os.execv(sys.executable, sys.argv[1:])"
    server = [sys.executable, "-c", code, *words_of_server(program("openai_server"))]
    engine = serving(url=None, server=server)
    row = row_of(engine, point())
    assert row.valid, row.error
    assert row.details["server_model"] == "stand-in"
    assert "openai_server" in row.details["server_command"]
    assert row.program_id == engine.program_id(point())
    wait_until_gone(int(noted.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        (
            {"server": [sys.executable, "-c", "raise SystemExit('no such checkpoint')", "{port}"]},
            "failed",
            "ended before it answered; its output ends with: no such checkpoint",
        ),
        (
            {"server": [sys.executable, "-c", "import time; time.sleep(99)", "{port}"], "start_timeout_s": 0.2},
            "timeout",
            "engine.start_timeout_s=0.2: the server did not answer in time (Connection refused); raise it",
        ),
        ({"server": ["vllm", "serve"]}, "unsupported", "names no {port}"),
        ({}, "unsupported", "engine.url=null: no server is named, and no engine.model_path"),
        ({"server": ["/nowhere", "{port}"]}, "unsupported", "/nowhere is not installed"),
    ],
)
def test_a_server_that_does_not_start_says_why(serving, changes, status, said):
    row = row_of(serving(url=None, **changes), point())
    assert row.status == status
    assert said in row.error


def test_vllm_serve_gets_the_degrees_and_no_cache_of_prompts(serving):
    engine = serving(url=None, model_path="/weights")
    words = engine._server_words(point(hw="h100-80gb", num_chips=4, tensor_parallel=2, weight_dtype="bfloat16"))
    assert words[:3] == ["vllm", "serve", "/weights"]
    options = dict(zip(words[3:-1:2], words[4::2], strict=False))
    assert (options["--tensor-parallel-size"], options["--pipeline-parallel-size"]) == ("2", "2")
    assert options["--max-model-len"] == "40"
    assert "--no-enable-prefix-caching" in words


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


class LoadgenStandIn:
    """What the driver calls of MLPerf LoadGen."""

    def __init__(self):
        self.first, self.done = [], []

    def QuerySampleResponse(self, number, address, size, tokens):
        return SimpleNamespace(number=number, tokens=tokens, size=size)

    def FirstTokenComplete(self, responses):
        self.first += responses

    def QuerySamplesComplete(self, responses):
        self.done += responses


@pytest.mark.parametrize(("model", "failed"), [("stand-in", 0), ("another", 3)])
def test_loadgen_is_told_of_every_token_and_of_every_failure(server, model, failed):
    asked = {"url": server, "model": model, "input_len": 5, "output_len": 3, "vocab": 100, "in_flight": 2, "seed": 0}
    loadgen = LoadgenStandIn()
    sender = Sender(asked, loadgen)
    sender.issue([SimpleNamespace(id=number, index=number) for number in range(3)])
    sender.pool.shutdown()
    assert sorted(each.number for each in loadgen.first) == sorted(each.number for each in loadgen.done) == [0, 1, 2]
    assert {each.tokens for each in loadgen.done} == {3}  # LoadGen knows no failures
    assert len(sender.errors) == failed
    assert len(sender.starts_s) == 3
    assert all(len(prompt) == 5 and max(prompt) < 100 for prompt in sender.prompts)
    assert threading.active_count() < 50


@pytest.mark.parametrize(
    ("changes", "asked", "said"),
    [
        ({"arrivals": "constant"}, {}, "engine.arrivals=constant: LoadGen sends by a Poisson process"),
        ({"arrivals": "poisson"}, {"output_len": 1}, "output_len=1: LoadGen divides by the tokens after the first"),
    ],
)
def test_what_loadgen_does_not_do_is_refused(serving, changes, asked, said):
    row = row_of(serving(client="loadgen", **changes), point(**asked))
    assert (row.status, row.error.startswith(said)) == ("unsupported", True)


def test_clients_are_asked_for_the_same_load(serving, tmp_path):
    of = point(ttft_limit_s=0.1, tpot_limit_s=0.02, batch_size=3)
    lines = {}
    for client in ("vllm", "aiperf"):
        engine = serving(client=client, arguments=["--extra"])
        lines[client] = " ".join(engine.client.command("x", engine._run(of, "http://s", "m", 20.0, 200, tmp_path)))
    for client, wanted in {
        "vllm": ["--num-prompts 200", "--request-rate 20.0", "--max-concurrency 3", "--goodput ttft:100 tpot:20"],
        "aiperf": [
            *("--request-count 200", "--request-rate 20.0", "--concurrency 3", "--arrival-pattern constant"),
            "--goodput time_to_first_token:100 inter_token_latency:20",
        ],
    }.items():
        assert all(each in lines[client] for each in [*wanted, "--extra"]), lines[client]
