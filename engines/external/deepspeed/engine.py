"""The engine that runs an installed DeepSpeed, with weights on the GPUs, in host memory or on NVMe."""

import json
import math
import shutil
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.external.engine import MODEL_KEYS, LatencyBenchmark, Timed, check_generate, check_one_dtype
from engines.external.hf_config import hf_config
from engines.host.program import ProgramFailed, output_tail

SCRIPT: Final = Path(__file__).with_name("measure.py")
MARK: Final = "SHARDBENCH "
"""What the line with the times begins with, as :mod:`engines.external.deepspeed.measure` prints it."""
REQUEST: Final = "request.json"
AIO: Final = {"block_size": 1 << 20, "queue_depth": 8, "overlap_events": True}


class DeepSpeedEngine(LatencyBenchmark):
    """Prefill and decode of a whole batch by ``transformers``' generate over DeepSpeed."""

    name: ClassVar[str] = "deepspeed"
    runtime: ClassVar[str | None] = "deepspeed"
    libraries: ClassVar[Sequence[str]] = ("deepspeed", "transformers", "torch")
    timed_by: ClassVar[str] = "generate of transformers over DeepSpeed"
    keys_read: ClassVar[Collection[str]] = (*MODEL_KEYS, "offload")

    def __init__(self, *, offload_dir: str | None, seed: int, **settings: Any) -> None:
        """Keys of ``conf/engine/deepspeed.yaml``."""
        super().__init__(**settings)
        self.offload_dir, self.seed = offload_dir, seed

    def check_supported(self, point: Point) -> None:
        """Raise Unsupported where DeepSpeed is not installed, or does not run the point."""
        check_generate(point)
        check_one_dtype(point)
        if point.pipeline_degree > 1:
            raise Unsupported(
                f"pipeline_parallel={point.pipeline_degree}: engine=deepspeed runs one stage; use pipeline_parallel=1"
            )
        if point.offload != "none" and point.num_chips > 1:
            raise Unsupported(
                f"num_chips={point.num_chips}: ZeRO gives each GPU sequences of its own, and a point is one batch over "
                f"all; use num_chips=1 with offload={point.offload}"
            )
        if point.offload == "nvme" and self.offload_dir is None:
            raise Unsupported("offload=nvme: engine=deepspeed writes the weights to a drive; set engine.offload_dir")
        if self.model_path is None:
            hf_config(point.model, point.weight_dtype, self.name)
        if shutil.which(self.program) is None:
            raise Unsupported(
                f"engine.program={self.program}: DeepSpeed is not installed on this machine; "
                "`pip install deepspeed transformers` beside PyTorch for CUDA, or give the path of its launcher"
            )

    def command(self, point: Point, folder: Path) -> list[str]:
        """Write the request, and a checkpoint's ``config.json`` unless the user gave a checkpoint."""
        if self.model_path is None:
            config = hf_config(point.model, point.weight_dtype, self.name)
            (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        request = {
            "model": self.model_path or ".",
            "weights": self.model_path is not None,
            "batch_size": point.batch_size,
            "input_len": point.input_len,
            "output_len": point.output_len,
            "dtype": point.weight_dtype,
            "tensor_parallel": point.tensor_degree,
            "warmup_runs": self.warmup_runs,
            "runs": self.runs,
            "seed": self.seed,
            "zero": None if point.offload == "none" else zero_config(point, self.offload_dir),
        }
        (folder / REQUEST).write_text(json.dumps(request, indent=2) + "\n", encoding="utf-8")
        return [self.program, "--num_gpus", str(point.num_chips), *self.arguments, str(SCRIPT), str(folder / REQUEST)]

    def read(self, point: Point, folder: Path, output: str) -> Timed:
        """The times in the last line that the script printed."""
        del point, folder
        found = [line for line in output.splitlines() if MARK in line]
        try:
            content = json.loads(found[-1].partition(MARK)[2])
            samples = [float(each) for each in content["samples_s"]]
        except (IndexError, ValueError, KeyError, TypeError):
            raise ProgramFailed(f"deepspeed printed no times{output_tail(output)}") from None
        if not samples or not all(math.isfinite(each) and each > 0 for each in samples):
            raise ProgramFailed(f"deepspeed printed times that are none: {samples}")
        details = {"program_versions": content.get("versions", {})}
        return Timed(latency_s=statistics.median(samples), samples_s=samples, details=details)


def zero_config(point: Point, offload_dir: str | None) -> Mapping[str, Any]:
    """The configuration of ZeRO stage 3 with one layer in use and the next fetched, as our own engines have it.

    Sizes are elements: parameters of less than d_model stay on the GPU; a bucket is a layer's matrices.
    """
    model = point.model
    layer = -(-(model.params - model.vocab_size * model.d_model) // model.num_layers)
    place: dict[str, Any] = {"device": "cpu", "pin_memory": True}
    if point.offload == "nvme":
        largest = max(model.d_model * model.d_ff, model.vocab_size * model.d_model)
        place = {"device": "nvme", "nvme_path": offload_dir, "pin_memory": True, "buffer_size": largest}
    return {
        "train_micro_batch_size_per_gpu": point.batch_size,
        "fp16": {"enabled": point.weight_dtype == "float16"},
        "bf16": {"enabled": point.weight_dtype == "bfloat16"},
        "aio": AIO,
        "zero_optimization": {
            "stage": 3,
            "offload_param": place,
            "stage3_prefetch_bucket_size": layer,
            "stage3_max_live_parameters": 2 * layer,
            "stage3_param_persistence_threshold": model.d_model,
        },
    }
