"""Stands in for ``trtllm-bench latency``: reads the requests, writes the report as STAND_IN says."""

import json
import os
import sys
from pathlib import Path

mode = os.environ.get("STAND_IN", "works")
options = dict(zip(sys.argv[1:], sys.argv[2:], strict=False))
requests = [json.loads(line) for line in Path(options["--dataset"]).read_text(encoding="utf-8").splitlines()]
assert len(requests) == int(options["--num_requests"])
assert options["--model_path"]
milliseconds = {"zero": 0.0, "text": "fast"}.get(mode, 10.0 * requests[0]["output_tokens"])
report = {"performance": {"request_latency_percentiles_ms": {"p50": milliseconds, "p99": 99.0}}}
if mode == "another":
    report = {"performance": {}}
if mode != "silent":
    Path(options["--report_json"]).write_text(json.dumps(report), encoding="utf-8")
