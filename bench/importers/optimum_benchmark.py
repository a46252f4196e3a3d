"""optimum-benchmark's ``benchmark.json``: its config and its report, times in seconds."""

import statistics
from typing import Any, Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from engines.core.engine import Estimate, Facts
from engines.core.errors import ShardbenchError
from engines.core.point import Phase

VERSIONS: Final = {"torch_version": "torch", "transformers_version": "transformers"}


def matches(content: Content) -> bool:
    """Whether the file is of this format."""
    return content.has("config", "report")


def entries(content: Content) -> list[ImportedResult]:
    """A prefill point and a decode point, of those that the report has.

    Its ``decode`` is all tokens after the first, so max_new_tokens − 1 steps from a cache that holds the prompt. There
    is no generate point: nothing says that the two were timed in the same runs.
    """
    whole_answer = content.whole("config.scenario.generate_kwargs.max_new_tokens")
    common, needs = _common(content)
    found = []
    targets: tuple[tuple[Phase, int | None], ...] = (
        ("prefill", 0),
        ("decode", None if whole_answer is None else whole_answer - 1),
    )
    for phase, output_len in targets:
        if not content.has(f"report.{phase}.latency.values"):
            continue
        unit = content.text(f"report.{phase}.latency.unit")
        if unit != "s":
            raise content.wrong(f"report.{phase}.latency.unit", unit, "s")
        samples_s = content.positives(f"report.{phase}.latency.values")
        assert samples_s is not None
        for same in ("count", "total", "mean", "p50", "p90", "p95", "p99", "stdev", "stdev_"):
            content.raw(f"report.{phase}.latency.{same}")  # of the samples, from which they are made again
        latency_s = statistics.median(samples_s)
        backend = content.text("config.backend.name")
        estimate = Estimate(
            system=f"optimum-benchmark {backend}" if backend else "optimum-benchmark",
            latency_s=latency_s,
            ttft_s=latency_s if phase == "prefill" else None,
            samples_s=samples_s,
            facts=Facts(versions=_versions(content), details={"timed_by": "optimum-benchmark"}),
        )
        stated = {**common, **({} if output_len is None else {"output_len": output_len})}
        found.append(
            ImportedResult(
                phase=phase,
                stated=stated,
                estimate=estimate,
                model_name=content.text("config.backend.model"),
                hw_name=_hw(content),
                needs=needs,
            )
        )
    if not found:
        raise ShardbenchError(f"{content.path}: its report has neither prefill nor decode, which alone can be imported")
    return found


def _common(content: Content) -> tuple[dict[str, Any], dict[str, str]]:
    stated: dict[str, Any] = {
        "batch_size": content.whole("config.scenario.input_shapes.batch_size"),
        "input_len": content.whole("config.scenario.input_shapes.sequence_length"),
        "num_chips": _chips(content),
    }
    needs = {"num_chips": "the file does not say which devices it used; give num_chips="}
    dtype = content.text("config.backend.torch_dtype")
    if content.has("config.backend.quantization_scheme"):
        needs["weight_dtype"] = "the file quantised its weights; give weight_dtype="
    elif dtype in ("float32", "bfloat16", "float16"):
        stated["weight_dtype"] = dtype
    return {key: value for key, value in stated.items() if value is not None}, needs


def _chips(content: Content) -> int | None:
    if content.text("config.backend.device") == "cpu":
        return 1
    ids = content.raw("config.backend.device_ids")
    if ids is not None:
        return len([each for each in str(ids).split(",") if each.strip()])
    # Without device_ids it may have used any of the machine's GPUs, unless there is one.
    return 1 if content.raw("config.environment.gpu_count") == 1 else None


def _hw(content: Content) -> str | None:
    if content.text("config.backend.device") == "cpu":
        return "cpu"
    gpus = content.raw("config.environment.gpu")
    names = set(map(str, gpus)) if isinstance(gpus, list) else {str(gpus)}
    return names.pop() if len(names) == 1 and gpus else None


def _versions(content: Content) -> dict[str, str]:
    found = {ours: content.text(f"config.environment.{theirs}") for theirs, ours in VERSIONS.items()}
    return {name: version for name, version in found.items() if version is not None}
