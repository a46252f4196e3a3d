"""optimum-benchmark's ``benchmark.json``: its config and its report, with times in seconds."""

import re
import statistics
from typing import Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from bench.importers.optimum_keys import KEPT, check_meaning
from bench.importers.sample_checks import check_samples
from bench.importers.serving_checks import agree
from engines.core.errors import ShardbenchError
from engines.core.point_keys import Phase

WANTED: Final = ("config.backend", "config.scenario", "report.prefill", "report.decode")
BACKEND, SCENARIO, ENVIRONMENT = "config.backend", "config.scenario", "config.environment"
VERSIONS: Final = {"torch_version": "torch", "transformers_version": "transformers"}
QUANTISED: Final = re.compile(
    r"(?i)awq|gptq|gguf|exl2|bnb|nf4|fp4|fp8|(int|w)-?[48]|[48]-?bits?\b|quant|hqq|aqlm|q[2-8]_"
)
"""Parts of a checkpoint's name that say that its weights are quantised, whatever ``torch_dtype`` it computes in."""


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("config.backend", "config.scenario", "report")


def entries(content: Content) -> list[ImportedResult]:
    """A prefill point and a decode point, as far as the report has them.

    Its ``decode`` generates all tokens after the first: max_new_tokens − 1 steps from a cache that holds the prompt.
    There is no generate point, because the file does not state that both were timed in the same runs.
    """
    check_meaning(content)
    needs: dict[str, str] = {}
    common = stated(
        batch_size=content.integer(f"{SCENARIO}.input_shapes.batch_size"),
        input_len=content.integer(f"{SCENARIO}.input_shapes.sequence_length"),
        num_chips=_chips(content, needs),
        weight_dtype=_weights(content, needs),
    )
    steps = _steps(content, needs)
    model, backend, hw = content.text(f"{BACKEND}.model"), content.text(f"{BACKEND}.name"), _hw(content)
    found = []
    phases: tuple[Phase, ...] = ("prefill", "decode")
    for phase in phases:
        samples = _samples(content, phase)
        if samples is None:
            continue
        point = common if phase == "prefill" else {**common, **stated(output_len=steps)}
        latency = by_rule("median_of_runs", statistics.median(samples.value), samples)
        _check_throughput(content, phase, samples, point)
        first = by_rule("prefill_is_first_token", latency.value, samples) if phase == "prefill" else None
        found.append(
            ImportedResult(
                phase=phase,
                timed_by="optimum-benchmark",
                system="optimum-benchmark" if backend is None else f"optimum-benchmark {backend.value}",
                point=point,
                figures=stated(samples_s=samples, latency_s=latency, ttft_s=first),
                model=model,
                hw=hw,
                needs=needs,
                versions=_versions(content),
            )
        )
    if not found:
        raise ShardbenchError(
            f"{content.where}: report.prefill and report.decode are missing; import a text-generation report"
        )
    content.keep(*KEPT)
    return found


def _samples(content: Content, phase: str) -> Known | None:
    path = f"report.{phase}.latency"
    samples = content.numbers(f"{path}.values")
    if samples is None:
        return None
    content.required(f"{path}.unit", content.one_of(f"{path}.unit", "s"))
    percentiles = {f"{path}.p{each}": float(each) for each in (50, 90, 95, 99)}
    statistic = {name: f"{path}.{key}" for name, key in (("mean", "mean"), ("std", "stdev"), ("total", "total"))}
    check_samples(content, samples.value, count=f"{path}.count", percentiles=percentiles, **statistic)
    percent = content.number(f"{path}.stdev_", zero=True)
    mean = statistics.fmean(samples.value)
    if percent is not None and abs(percent.value / 100 * mean - statistics.pstdev(samples.value)) > 0.02 * mean:
        raise content.refused(
            f"{path}.stdev_", "is not the spread of the values in percent", "import an unmodified file"
        )
    return samples


def _check_throughput(content: Content, phase: str, samples: Known, point: dict[str, Known]) -> None:
    """Tokens/s are those of the batch over the mean time."""
    path = f"report.{phase}.throughput"
    rate = content.number(f"{path}.value")
    content.one_of(f"{path}.unit", "tokens/s")
    length, batch = point.get("input_len" if phase == "prefill" else "output_len"), point.get("batch_size")
    if length is not None and batch is not None:
        tokens = batch.value * length.value
        agree(content, rate, tokens / statistics.fmean(samples.value), batch, length, samples)


def _steps(content: Content, needs: dict[str, str]) -> Known | None:
    """Decode steps: every sequence generates as many tokens only where the least and the most are the same."""
    path = f"{SCENARIO}.generate_kwargs"
    most, least = content.integer(f"{path}.max_new_tokens"), content.integer(f"{path}.min_new_tokens", zero=True)
    if most is None:
        return None
    if least is None or least.value != most.value:
        needs["output_len"] = "min_new_tokens is not max_new_tokens, so that sequences may end earlier"
        return None
    if most.value < 2:
        raise content.refused(f"{path}.max_new_tokens", "leaves no decode step", "use phase=prefill")
    return by_rule("steps_after_first", most.value - 1, most, least)


def _weights(content: Content, needs: dict[str, str]) -> Known | None:
    dtype, model = content.text(f"{BACKEND}.torch_dtype"), content.text(f"{BACKEND}.model")
    quantised = content.given(f"{BACKEND}.quantization_scheme") or content.given(f"{BACKEND}.quantization_config")
    content.keep(f"{BACKEND}.quantization_scheme", f"{BACKEND}.quantization_config.*")
    if quantised:
        needs["weight_dtype"] = "the benchmark quantised its weights"
    elif model is not None and QUANTISED.search(model.value):
        needs["weight_dtype"] = (
            f"{model.value} is a quantised checkpoint by its name, of which torch_dtype says nothing"
        )
    elif dtype is not None and dtype.value in ("float32", "bfloat16", "float16"):
        return dtype
    return None


def _chips(content: Content, needs: dict[str, str]) -> Known | None:
    """Chips that were used, which are not those that were seen."""
    device = content.text(f"{BACKEND}.device")
    ids, seen = content.value(f"{BACKEND}.device_ids"), content.integer(f"{ENVIRONMENT}.gpu_count", zero=True)
    backend, spread = content.text(f"{BACKEND}.name"), content.value(f"{BACKEND}.device_map")
    if device is None:
        needs["num_chips"] = "the file does not state its device"
        return None
    if device.value == "cpu":
        return by_rule("one_cpu", 1, device)
    listed = None if ids is None else [each for each in re.split(r"[\s,\[\]]+", str(ids.value)) if each]
    if listed is not None and (not listed or not all(each.isdigit() for each in listed)):
        raise content.invalid(f"{BACKEND}.device_ids", ids and ids.value, "numbers of devices, such as 0,1")
    one = len(listed) == 1 if listed is not None else seen is not None and seen.value == 1
    if spread is not None and not one:
        problem = "spreads layers over several GPUs, of which one works at a time"
        raise content.refused(f"{BACKEND}.device_map", problem, "import a benchmark of one GPU")
    if one:
        return by_rule("chips_of_devices", 1, ids or seen)
    if backend is not None and backend.value == "pytorch":
        return by_rule("one_gpu", 1, backend, device)
    needs["num_chips"] = "the file states the devices that were seen, not those that were used"
    return None


def _hw(content: Content) -> Known | None:
    device = content.text(f"{BACKEND}.device")
    if device is not None and device.value == "cpu":
        return device
    gpus = content.value(f"{ENVIRONMENT}.gpu")
    if gpus is None:
        return None
    names = gpus.value if isinstance(gpus.value, list) else [gpus.value]
    if not names or not all(isinstance(each, str) and each for each in names):
        raise content.invalid(f"{ENVIRONMENT}.gpu", gpus.value, "the names of the GPUs")
    if len(set(names)) > 1:
        raise content.refused(f"{ENVIRONMENT}.gpu", "are several kinds of GPU", "import a benchmark of one kind")
    return Known(names[0], gpus.origin)


def _versions(content: Content) -> dict[str, str]:
    found = {ours: content.text(f"{ENVIRONMENT}.{theirs}") for theirs, ours in VERSIONS.items()}
    return {name: known.value for name, known in found.items() if known is not None}
