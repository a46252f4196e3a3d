"""Stands in for ``vllm bench serve``: computes, in no time, what a client would see of a server with a known law.

The server answers ``slots`` requests at a time, in order, each in ``prefill + (n − 1) · step`` seconds (STAND_IN_LAW).
Requests come at even or random intervals, as ``--burstiness`` says. STAND_IN makes it fail in one way or another.
"""

import heapq
import json
import os
import random
import statistics
import sys
from pathlib import Path

assert sys.argv[1:3] == ["bench", "serve"]
words = sys.argv[3:]
options = {word: words[place + 1] for place, word in enumerate(words[:-1]) if word.startswith("--")}
mode = os.environ.get("STAND_IN", "works")
slots, prefill_s, step_s = json.loads(os.environ.get("STAND_IN_LAW", "[4, 0.05, 0.01]"))
count, length = int(options["--num-prompts"]), int(options["--random-output-len"])
rate = float(options["--request-rate"])
if mode == "crash":
    print("Traceback ...\nValueError: tokenizer not found")
    sys.exit(1)
if mode == "silent":
    sys.exit(0)
draw = random.Random(int(options["--seed"]))
even = float(options["--burstiness"]) > 100
slow = 0.5 if mode == "slow" else 1.0
arrivals, now = [], 0.0
for _ in range(count):
    arrivals.append(now)
    now += 0.0 if rate == float("inf") else (1.0 if even else draw.expovariate(1.0)) / (rate * slow)
free = [0.0] * slots
most = int(options.get("--max-concurrency", 0)) or slots
free = free[: min(slots, most)]
ttfts, ends = [], []
total_s = prefill_s + (length - 1) * step_s
for arrival in arrivals:
    begin = max(arrival, heapq.heappop(free))
    heapq.heappush(free, begin + total_s)
    # A client that bounds the requests in flight sends one when another ends: its wait is no part of its time.
    ttfts.append(prefill_s + (begin - arrival) * ("--max-concurrency" not in options))
    ends.append(begin + total_s)
failed = {"half": count // 2, "all": count}.get(mode, 0)
good = count - failed
duration = max(ends)
short = length // 2 if mode == "short" else length
tpots = [step_s] * count


def figures(name, values):
    found = {f"mean_{name}_ms": statistics.fmean(values), f"median_{name}_ms": statistics.median(values)}
    found[f"std_{name}_ms"] = statistics.pstdev(values)
    ordered = sorted(values)
    for share in options["--metric-percentiles"].split(","):
        found[f"p{share}_{name}_ms"] = ordered[min(count - 1, round(float(share) / 100 * (count - 1)))]
    return {key: 1e3 * value for key, value in found.items()}


content = {
    "date": "20261127-000000",
    "endpoint_type": "openai",
    "model_id": options["--model"],
    "tokenizer_id": options["--tokenizer"],
    "num_prompts": count,
    "request_rate": "inf" if rate == float("inf") else rate,
    "burstiness": float(options["--burstiness"]),
    "max_concurrency": int(options["--max-concurrency"]) if "--max-concurrency" in options else None,
    "duration": duration,
    "completed": good,
    "failed": failed,
    "total_input_tokens": good * int(options["--random-input-len"]),
    "total_output_tokens": good * short,
    "request_throughput": good / duration,
    "output_throughput": good * short / duration,
    "total_token_throughput": good * (short + int(options["--random-input-len"])) / duration,
    "errors": ["connection reset"] * failed + [""] * good,
    "start_times": arrivals,
    **figures("ttft", ttfts),
    **figures("tpot", tpots),
    **figures("itl", tpots),
    **figures("e2el", [ttft + (length - 1) * step_s for ttft in ttfts]),
}
if "--goodput" in words:
    limits = dict(word.split(":") for word in words[words.index("--goodput") + 1 :])
    met = [
        1e3 * ttft <= float(limits.get("ttft", "inf")) and 1e3 * step_s <= float(limits.get("tpot", "inf"))
        for ttft in ttfts
    ]
    content["request_goodput"] = sum(met) * good / count / duration
text = "{" if mode == "garbage" else json.dumps(content)
Path(options["--result-dir"], options["--result-filename"]).write_text(text, encoding="utf-8")
