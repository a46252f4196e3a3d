"""Drives MLPerf LoadGen against a server with OpenAI's interface: ``python loadgen_driver.py FOLDER``.

It runs in whatever Python has ``mlcommons-loadgen``, so that it imports that and the standard library alone. ``FOLDER``
holds :data:`ASKED`, and gets LoadGen's own files and :data:`SAID`. LoadGen decides when a request is sent, and takes
the times; this program sends it, and tells LoadGen of its first token and of its end.
"""

import array
import http.client
import importlib
import json
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ASKED = "asked.json"
SAID = "said.json"
MOST_AT_ONCE = 1024
"""Requests in flight where nothing bounds them."""
PROMPTS = 64
"""Different prompts."""


class Sender:
    """Sends requests, and notes when it did and what failed."""

    def __init__(self, asked: dict[str, Any], loadgen: Any) -> None:
        """What is asked, and the module of LoadGen."""
        self.asked, self.loadgen = asked, loadgen
        self.starts_s: list[float] = []
        self.errors: list[str] = []
        self.lock = threading.Lock()
        draw = random.Random(asked["seed"])
        length, vocab = asked["input_len"], asked["vocab"]
        self.prompts = [[draw.randrange(vocab) for _ in range(length)] for _ in range(PROMPTS)]
        self.pool = ThreadPoolExecutor(asked["in_flight"] or MOST_AT_ONCE)

    def issue(self, samples: Sequence[Any]) -> None:
        """Called by LoadGen."""
        for sample in samples:
            self.pool.submit(self.send, sample.id, sample.index)

    def send(self, number: int, index: int) -> None:
        """Send one request and read its answer."""
        with self.lock:
            self.starts_s.append(time.perf_counter())
        tokens = 0
        try:
            for _ in self.tokens(self.prompts[index % PROMPTS]):
                tokens += 1
                if tokens == 1:
                    self.tell(self.loadgen.FirstTokenComplete, number, 1)
            if tokens != self.asked["output_len"]:
                raise OSError(f"{tokens} tokens came of output_len={self.asked['output_len']}")
        except (OSError, ValueError, http.client.HTTPException) as error:
            with self.lock:
                self.errors.append(f"{type(error).__name__}: {error}")
        if not tokens:
            self.tell(self.loadgen.FirstTokenComplete, number, 1)
        # LoadGen knows no failures, and divides by the tokens after the first: a failed request counts as whole there,
        # and said.json has how many there were.
        self.tell(self.loadgen.QuerySamplesComplete, number, self.asked["output_len"])

    def tell(self, how: Any, number: int, tokens: int) -> None:
        """Call LoadGen with so many tokens of a request, four bytes each."""
        data = array.array("B", bytes(4 * tokens))
        address, length = data.buffer_info()
        how([self.loadgen.QuerySampleResponse(number, address, length, tokens)])

    def tokens(self, prompt: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The pieces of an answer as they come; a server may send one that holds several tokens' text at once."""
        where = urlsplit(self.asked["url"])
        kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
        connection = kind(where.hostname, where.port, timeout=600)
        length = self.asked["output_len"]
        body = {"model": self.asked["model"], "prompt": prompt, "stream": True, "temperature": 0}
        body |= {"max_tokens": length, "min_tokens": length, "ignore_eos": True}
        try:
            connection.request(
                "POST",
                f"{where.path.rstrip('/')}/v1/completions",
                json.dumps(body),
                {"Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            if answer.status != 200:
                raise OSError(f"HTTP status {answer.status}: {answer.read(200).decode(errors='replace')}")
            for line in answer:
                data = line.strip().removeprefix(b"data:").strip()
                if data in (b"", b"[DONE]") or not line.startswith(b"data:"):
                    continue
                content = json.loads(data)
                if "error" in content:
                    raise OSError(str(content["error"]))
                if content.get("choices"):
                    yield content
        finally:
            connection.close()


def settings_of(asked: dict[str, Any], loadgen: Any) -> Any:
    """LoadGen's settings: as many requests as asked, whatever time they take."""
    found = loadgen.TestSettings()
    found.mode = loadgen.TestMode.PerformanceOnly
    found.min_query_count = found.max_query_count = asked["requests"]
    found.min_duration_ms = 0
    found.use_token_latencies = True
    found.ttft_latency = round(asked["ttft_limit_s"] * 1e9)
    found.tpot_latency = round(asked["tpot_limit_s"] * 1e9)
    found.qsl_rng_seed = found.sample_index_rng_seed = found.schedule_rng_seed = asked["seed"] + 1
    if asked["requests_per_s"] is None:
        found.scenario = loadgen.TestScenario.Offline
        found.offline_expected_qps = 1.0
        found.min_query_count = asked["requests"]
    else:
        found.scenario = loadgen.TestScenario.Server
        found.server_target_qps = asked["requests_per_s"]
        found.server_target_latency_percentile = asked["share"]
    return found


def main(folder: Path) -> None:
    """One run."""
    loadgen = importlib.import_module("mlperf_loadgen")

    asked = json.loads((folder / ASKED).read_text(encoding="utf-8"))
    sender = Sender(asked, loadgen)
    outputs, logs = loadgen.LogOutputSettings(), loadgen.LogSettings()
    outputs.outdir = str(folder)
    logs.log_output, logs.enable_trace = outputs, False
    system = loadgen.ConstructSUT(sender.issue, lambda: None)
    library = loadgen.ConstructQSL(asked["requests"], asked["requests"], lambda _: None, lambda _: None)
    loadgen.StartTestWithLogSettings(system, library, settings_of(asked, loadgen), logs)
    sender.pool.shutdown()
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(system)
    said = {"starts_s": sender.starts_s, "failed": len(sender.errors), "error": (sender.errors or [""])[0][:300]}
    (folder / SAID).write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
