"""optimum-benchmark's ``benchmark.json``: its config and its report, with times in seconds."""

import statistics
from typing import Any, Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from engines.core.engine import Estimate, Facts
from engines.core.errors import ShardbenchError
from engines.core.point import Phase

VERSIONS: Final = {"torch_version": "torch", "transformers_version": "transformers"}


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("config", "report")


def entries(content: Content) -> list[ImportedResult]:
    """A prefill point and a decode point, as far as the report has them.

    Its ``decode`` generates all tokens after the first: max_new_tokens − 1 steps from a cache that holds the prompt.
    There is no generate point, because the file does not state that both were timed in the same runs.
    """
    new_tokens = content.integer("config.scenario.generate_kwargs.max_new_tokens")
    common, needs = _common(content)
    found = []
    targets: tuple[tuple[Phase, int | None], ...] = (
        ("prefill", 0),
        ("decode", None if new_tokens is None else new_tokens - 1),
    )
    for phase, output_len in targets:
        if not content.has(f"report.{phase}.latency.values"):
            continue
        unit = content.text(f"report.{phase}.latency.unit")
        if unit != "s":
            raise content.invalid(f"report.{phase}.latency.unit", unit, "s")
        samples_s = content.positives(f"report.{phase}.latency.values")
        assert samples_s is not None
        for statistic in ("count", "total", "mean", "p50", "p90", "p95", "p99", "stdev", "stdev_"):
            content.raw(f"report.{phase}.latency.{statistic}")  # computed again from the samples
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
        raise ShardbenchError(
            f"{content.path}: report.prefill and report.decode are missing; import a text-generation report"
        )
    return found


def _common(content: Content) -> tuple[dict[str, Any], dict[str, str]]:
    stated: dict[str, Any] = {
        "batch_size": content.integer("config.scenario.input_shapes.batch_size"),
        "input_len": content.integer("config.scenario.input_shapes.sequence_length"),
        "num_chips": _chips(content),
    }
    needs = {"num_chips": "the file does not state its devices"}
    dtype = content.text("config.backend.torch_dtype")
    if content.has("config.backend.quantization_scheme"):
        needs["weight_dtype"] = "the benchmark quantised its weights"
    elif dtype in ("float32", "bfloat16", "float16"):
        stated["weight_dtype"] = dtype
    return {key: value for key, value in stated.items() if value is not None}, needs


def _chips(content: Content) -> int | None:
    if content.text("config.backend.device") == "cpu":
        return 1
    ids = content.raw("config.backend.device_ids")
    if ids is not None:
        return len([each for each in str(ids).split(",") if each.strip()])
    # Without device_ids it may have used any number of the machine's GPUs, unless there is only one.
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
