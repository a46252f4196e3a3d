"""The engine that runs ``trtllm-bench latency`` of an installed TensorRT-LLM."""

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.external.engine import MODEL_KEYS, LatencyBenchmark, Timed, check_generate, check_one_dtype
from engines.host.program import ProgramFailed, output_tail
from engines.weights.random import prompt

DATASET_FILE: Final = "requests.jsonl"
REPORT_FILE: Final = "report.json"


class TrtllmEngine(LatencyBenchmark):
    """Prefill and decode of one sequence at a time, as its latency benchmark runs them."""

    name: ClassVar[str] = "trtllm"
    runtime: ClassVar[str | None] = "tensorrt-llm"
    libraries: ClassVar[Sequence[str]] = ("tensorrt-llm",)
    timed_by: ClassVar[str] = "trtllm-bench latency"
    keys_read: ClassVar[Collection[str]] = (*MODEL_KEYS, "expert_parallel")

    def __init__(self, *, seed: int = 0, **settings: Any) -> None:
        """See ``conf/engine/trtllm.yaml``."""
        super().__init__(**settings)
        self.seed = seed

    def check_supported(self, point: Point) -> None:
        """Raise Unsupported for phases other than generate, batches, mixed dtypes, and without a checkpoint."""
        check_generate(point)
        check_one_dtype(point)
        if point.batch_size != 1:
            raise Unsupported(f"batch_size={point.batch_size}: trtllm-bench latency runs one sequence at a time; use 1")
        if self.model_path is None:
            raise Unsupported("engine.model_path=null: trtllm-bench needs a checkpoint; use engine.model_path=FOLDER")

    def command(self, point: Point, folder: Path) -> list[str]:
        """Write the requests, one per line."""
        ids = prompt(point.model, self.runs, point.input_len, self.seed).tolist()
        lines = [
            json.dumps({"task_id": number, "input_ids": row, "output_tokens": point.output_len})
            for number, row in enumerate(ids)
        ]
        (folder / DATASET_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
        options: dict[str, Any] = {
            "--dataset": DATASET_FILE,
            "--tp": point.tensor_degree,
            "--pp": point.pipeline_degree,
            "--concurrency": 1,
            "--num_requests": self.runs,
            "--warmup": self.warmup_runs,
            "--report_json": REPORT_FILE,
        }
        if point.expert_parallel is not None:
            options["--ep"] = point.expert_parallel
        words = [str(word) for option in options.items() for word in option]
        model = ["--model", point.model.name, "--model_path", str(self.model_path)]
        return [self.program, *model, "latency", "--backend", "pytorch", *words, *self.arguments]

    def read(self, point: Point, folder: Path, output: str) -> Timed:
        """The median over requests of the report's ``performance.request_latency_percentiles_ms``."""
        try:
            content = json.loads((folder / REPORT_FILE).read_bytes())
            milliseconds = content["performance"]["request_latency_percentiles_ms"]["p50"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ProgramFailed(f"trtllm-bench wrote no latencies in {REPORT_FILE}{output_tail(output)}") from None
        if not isinstance(milliseconds, (int, float)) or not math.isfinite(milliseconds) or milliseconds <= 0:
            raise ProgramFailed(f"trtllm-bench wrote a latency of {milliseconds} ms")
        return Timed(
            latency_s=float(milliseconds) / 1e3,
            details={"requests": self.runs, "latency_is": "median over requests"},
        )
