"""NVIDIA AIPerf and GenAI-Perf ``profile_export_*.json``: figures with their units, of a server under load."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from bench.importers.content import Content, is_number
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule
from bench.importers.request_statistics import statistics_at
from bench.importers.served import Served
from bench.importers.serving import serve_result
from bench.importers.serving_checks import agree

WANTED: Final = ("request_throughput.unit", "request_throughput.avg", "request_latency.unit", "input_config")
SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
REQUESTS_PER_S: Final = dict.fromkeys(("requests/sec", "requests/s", "per sec"), 1.0)
TOKENS_PER_S: Final = dict.fromkeys(("tokens/sec", "tokens/s"), 1.0)
TOKENS: Final = dict.fromkeys(("tokens",), 1.0)
REQUESTS: Final = dict.fromkeys(("requests", "count"), 1.0)
TIMES: Final = {
    "ttft_s": "time_to_first_token",
    "tpot_s": "inter_token_latency",
    "e2el_s": "request_latency",
}
"""Name in ``load`` → metric. The inter-token latency of a request is the mean of its tokens after the first."""
CONCURRENCY: Final = (
    "input_config.loadgen.concurrency",
    "input_config.perf_analyzer.stimulus.concurrency",
    "input_config.concurrency",
)
PHASES: Final = "input_config.phases"
RATE: Final = (
    "input_config.loadgen.request_rate",
    "input_config.perf_analyzer.stimulus.request_rate",
    "input_config.request_rate",
)
MODELS: Final = (
    "input_config.endpoint.model_names",
    "input_config.model_names",
    "input_config.models.items",
    "input_config.model",
)
KEPT: Final = (
    *("schema_version", "aiperf_version", "benchmark_id", "start_time", "end_time", "input_config.*"),
    *("time_to_second_token.*", "output_token_throughput_per_user.*", "inter_chunk_latency.*", "warmup_metrics.*"),
    *("input_sequence_length.*", "output_sequence_length.*", "output_token_count.*", "telemetry_data.*", "run_info.*"),
    *("min_request_timestamp.*", "max_response_timestamp.*", "is_complete"),
)

NONE_OF: Final = (
    ("input_config.input.prompt.prefix_prompt.length", "are tokens that prompts share"),
    ("total_usage_prompt_cache_read_tokens.avg", "are tokens of prompts that a cache answered"),
    ("total_usage_accepted_prediction_tokens.avg", "are tokens of speculative decoding"),
    ("total_usage_prompt_audio_tokens.avg", "are tokens of sound"),
)
"""Numbers that must be 0 → what they mean."""
FURTHER: Final = re.compile(
    r"(http|active|effective|credit|e2e|osl|completed|decode|prefill|tokens_in_flight|input_token|total_output|total_usage"
    r"|usage_(prompt|completion|total|discrepancy)|time_to_first_output|request_error)_?\w*"
)
"""Names of further metrics that change no figure of a row."""


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("request_throughput.unit", "request_throughput.avg")


def entries(content: Content) -> list[ImportedResult]:
    """One serve point; every figure in the unit that stands beside it."""
    content.off("was_cancelled", "is a run that was ended early")
    if content.values.get("is_complete") is False:
        raise content.refused("is_complete", "is a run that did not finish", "import a whole run")
    for key, meaning in NONE_OF:
        content.off(key, meaning, 0)
    completed = _whole(_figure(content, "request_count", REQUESTS), content, "request_count.avg")
    rate = content.required("request_throughput.avg", _figure(content, "request_throughput", REQUESTS_PER_S))
    statistics: dict[str, Known] = {}
    for name, metric in TIMES.items():
        if content.names(metric):
            statistics |= statistics_at(content, name, metric, scale=_scale(content, metric, SECONDS))
            _check_sum(content, metric, completed)
    lengths = {key: _figure(content, f"{key}_sequence_length", TOKENS) for key in ("input", "output")}
    output_rate = _figure(content, "output_token_throughput", TOKENS_PER_S)
    served = Served(
        completed=completed,
        failed=_failed(content),
        limit=content.integer(_first(content, CONCURRENCY)) or _of_phase(content, "concurrency"),
        duration_s=_duration(content, completed, rate),
        input_tokens=_tokens(content, "total_isl", lengths["input"], completed),
        output_tokens=_tokens(content, "total_osl", lengths["output"], completed),
        requests_per_s=rate,
        input_tokens_per_s=_times(rate, lengths["input"]),
        output_tokens_per_s=output_rate or _times(rate, lengths["output"]),
        tokens_per_s=_figure(content, "total_token_throughput", TOKENS_PER_S),
        request_rate_per_s=content.number(_first(content, RATE)) or _of_phase(content, "rate"),
        goodput_requests_per_s=_figure(content, "goodput", REQUESTS_PER_S)
        or _figure(content, "request_goodput", REQUESTS_PER_S),
        input_range=_range(content, "input_sequence_length"),
        output_range=_range(content, "output_sequence_length"),
        statistics=statistics,
    )
    model = _model(content)
    content.keep(*KEPT, *(f"{name}.*" for name in content.names() if FURTHER.fullmatch(name)))
    ours = content.has("aiperf_version") or content.has("benchmark_duration")
    return [
        serve_result(
            content, served, timed_by="aiperf" if ours else "aiperf or genai-perf", system="a server", model=model
        )
    ]


def _duration(content: Content, completed: Known | None, rate: Known) -> Known | None:
    """The seconds that rates are of: from the first request to the last answer, or in newer versions from
    ``start_time`` to ``end_time`` of the run, whichever of the two requests/s state."""
    spanned = _figure(content, "benchmark_duration", SECONDS)
    begin, end = (content.values.get(key) for key in ("start_time", "end_time"))
    try:
        whole_s = (datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(begin))).total_seconds()
    except (ValueError, TypeError):
        return spanned
    if spanned is None or completed is None or not whole_s > 0:
        return spanned
    stated_s = completed.value / rate.value
    whole = Known(whole_s, "file: start_time, end_time")
    return min(spanned, whole, key=lambda each: abs(float(each.value) - stated_s))


def _scale(content: Content, metric: str, units: Mapping[str, float]) -> float:
    """What the unit that stands beside a metric is in SI units."""
    key = f"{metric}.unit"
    unit = content.required(key, content.text(key))
    if str(unit.value).lower() not in units:
        raise content.refused(key, "is a unit that is not known here", f"import a file in {' or '.join(units)}")
    return units[str(unit.value).lower()]


def _figure(content: Content, metric: str, units: Mapping[str, float]) -> Known | None:
    """The one value of a metric, or the mean of its values, in SI units."""
    if not content.names(metric):
        return None
    return content.number(f"{metric}.avg", scale=_scale(content, metric, units), zero=metric.endswith("goodput"))


def _first(content: Content, keys: tuple[str, ...]) -> str:
    """The first key that is there."""
    return next((key for key in keys if content.has(key)), keys[0])


def _of_phase(content: Content, key: str) -> Known | None:
    """A number of the one phase that was measured, of which newer versions list the settings."""
    settings = content.values.get("input_config")
    phases: Any = settings.get("phases") if isinstance(settings, Mapping) else None
    if not isinstance(phases, list) or not all(isinstance(each, Mapping) for each in phases):
        return None
    found = [each.get(key) for each in phases if each.get("name") != "warmup" and not each.get("exclude_from_results")]
    known = [each for each in found if is_number(each) and each > 0]
    return Known(known[0], f"file: {PHASES}") if len(found) == len(known) == 1 else None


def _times(rate: Known, length: Known | None) -> Known | None:
    return None if length is None else by_rule("mean_times_rate", rate.value * length.value, rate, length)


def _tokens(content: Content, total: str, mean: Known | None, completed: Known | None) -> Known | None:
    found = _figure(content, total, TOKENS)
    if found is not None or mean is None or completed is None:
        return found
    return by_rule("mean_times_requests", mean.value * completed.value, mean, completed)


def _range(content: Content, metric: str) -> Known | None:
    found: list[Any] = [content.number(f"{metric}.{key}") for key in ("min", "max")]
    if None in found:
        return None
    return Known((found[0].value, found[1].value), f"file: {metric}.min, {metric}.max")


def _check_sum(content: Content, metric: str, completed: Known | None) -> None:
    """Newer versions state the count and the sum of the values beside their mean."""
    count, mean = content.integer(f"{metric}.count"), content.number(f"{metric}.avg")
    if count is not None and completed is not None and count.value > completed.value:
        raise content.refused(f"{metric}.count", "is above request_count", "import an unmodified file")
    if count is not None and mean is not None:
        agree(content, content.number(f"{metric}.sum"), count.value * mean.value, count, mean)


def _whole(known: Known | None, content: Content, key: str) -> Known | None:
    return None if known is None else content.integer(key)


def _failed(content: Content) -> Known | None:
    known = content.integer("error_request_count.avg", zero=True)
    if known is not None:
        _scale(content, "error_request_count", REQUESTS)
        return known
    errors: Any = content.values.get("error_summary")
    content.keep("error_summary")
    if not isinstance(errors, list):
        return None
    counts = sum(each.get("count", 1) if isinstance(each, Mapping) else 1 for each in errors)
    return by_rule("errors_listed", counts, Known(errors, "file: error_summary"))


def _model(content: Content) -> Known | None:
    known = content.value(_first(content, MODELS))
    if known is not None and isinstance(known.value, list) and all(isinstance(each, Mapping) for each in known.value):
        known = Known([each.get("name") for each in known.value], known.origin)
    if known is None or isinstance(known.value, str):
        return known
    if isinstance(known.value, list) and len(known.value) == 1 and isinstance(known.value[0], str):
        return Known(known.value[0], known.origin)
    raise content.invalid(known.keys, known.value, "one model")
