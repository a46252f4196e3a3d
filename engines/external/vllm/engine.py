"""The engine that runs ``vllm bench latency`` of an installed vLLM."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, Final

from engines.core.errors import ShardbenchError, Unsupported
from engines.core.point import Point
from engines.external.engine import MODEL_KEYS, LatencyBenchmark, Timed, check_generate, check_one_dtype
from engines.external.hf_config import hf_config
from engines.external.vllm.latency_file import latencies
from engines.host.program import ProgramFailed, output_tail

OUTPUT_FILE: Final = "latency.json"


class VllmEngine(LatencyBenchmark):
    """Prefill and decode of a whole batch; vLLM does the ``warmup_runs`` and ``runs`` and reports each run's time."""

    name: ClassVar[str] = "vllm"
    runtime: ClassVar[str | None] = "vllm"
    libraries: ClassVar[Sequence[str]] = ("vllm",)
    timed_by: ClassVar[str] = "vllm bench latency"
    keys_read: ClassVar[Collection[str]] = (*MODEL_KEYS, "expert_parallel")

    def check_supported(self, point: Point) -> None:
        """Raise Unsupported for phases other than generate, mixed dtypes, and models that need a checkpoint."""
        check_generate(point)
        check_one_dtype(point)
        if (point.expert_parallel or 1) not in (1, point.tensor_degree):
            raise Unsupported(
                f"expert_parallel={point.expert_parallel}: vLLM spreads experts over all tensor_parallel="
                f"{point.tensor_degree} ranks or over none; use one of these"
            )
        if self.model_path is None:
            hf_config(point.model, point.weight_dtype, self.name)

    def command(self, point: Point, folder: Path) -> list[str]:
        """Write a checkpoint's ``config.json`` unless the user gave a checkpoint."""
        if self.model_path is None:
            config = hf_config(point.model, point.weight_dtype, self.name)
            (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            model = [str(folder), "--load-format", "dummy", "--skip-tokenizer-init", "--disable-detokenize"]
        else:
            model = [self.model_path]
        options = {
            "--tensor-parallel-size": point.tensor_degree,
            "--pipeline-parallel-size": point.pipeline_degree,
            "--batch-size": point.batch_size,
            "--input-len": point.input_len,
            "--output-len": point.output_len,
            "--dtype": point.weight_dtype,
            "--max-model-len": point.input_len + point.output_len,
            "--num-iters-warmup": self.warmup_runs,
            "--num-iters": self.runs,
            "--output-json": OUTPUT_FILE,
        }
        words = [str(word) for option in options.items() for word in option]
        # Every run has the same prompt, which prefix caching would prefill only once.
        return [
            *(self.program, "bench", "latency", "--model"),
            *model,
            *words,
            "--no-enable-prefix-caching",
            *(["--enable-expert-parallel"] if (point.expert_parallel or 1) > 1 else []),
            *self.arguments,
        ]

    def read(self, point: Point, folder: Path, output: str) -> Timed:
        """The times in the program's output file."""
        try:
            content = json.loads((folder / OUTPUT_FILE).read_bytes())
        except (OSError, ValueError):
            raise ProgramFailed(f"vllm bench latency wrote no readable {OUTPUT_FILE}{output_tail(output)}") from None
        try:
            samples_s, median_s = latencies(content if isinstance(content, dict) else {}, OUTPUT_FILE)
        except ShardbenchError as error:
            raise ProgramFailed(f"vllm bench latency wrote an unexpected {OUTPUT_FILE}: {error}") from None
        return Timed(latency_s=median_s, samples_s=samples_s)
