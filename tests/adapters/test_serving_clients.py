"""The clients that put a server under load: each is another question, and all are asked for the same load."""

import threading
from types import SimpleNamespace

import pytest
from served_point import point, row_of

from bench.run.keys import point_id
from engines.external.serving.loadgen_driver import Sender


def test_other_clients_and_other_servers_are_other_questions(serving):
    """An address is not: the same server may stand elsewhere tomorrow."""
    asked = [{}, {"client": "aiperf"}, {"system": "SGLang 0.5"}, {"share": 0.9}, {"arrivals": "poisson"}]
    ids = [point_id(serving(**each), point()) for each in asked]
    assert len(set(ids)) == len(ids)
    assert point_id(serving(url="http://elsewhere:1"), point()) == ids[0]
    assert row_of(serving(system="SGLang 0.5"), point()).system == "SGLang 0.5"


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
