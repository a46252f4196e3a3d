"""Stands in for ``vllm bench latency``: writes its file as STAND_IN says."""

import json
import os
import sys
from pathlib import Path

mode = os.environ.get("STAND_IN", "works")
assert sys.argv[1:3] == ["bench", "latency"]
options = dict(zip(sys.argv[3:], sys.argv[4:], strict=False))
if "--load-format" in options:
    config = json.loads((Path(options["--model"]) / "config.json").read_text(encoding="utf-8"))
    assert config["hidden_size"] % config["num_attention_heads"] == 0
if mode == "memory":
    print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    sys.exit(1)
if mode == "silent":
    sys.exit(0)
runs = int(options["--num-iters"])
latencies = [int(options["--output-len"]) / 100 + run / 1000 for run in range(runs)]
content = {"avg_latency": sum(latencies) / runs, "latencies": latencies, "percentiles": {"50": 1.0}}
text = {"garbage": "{", "another": "[]"}.get(mode, json.dumps(content))
Path(options["--output-json"]).write_text(text, encoding="utf-8")
