"""LLMPerf ``*_summary.json`` of its token benchmark, with times in seconds.

Its ``inter_token_latency_s`` divides the whole time of a request by its tokens, the first among them, and so is no time
per output token after the first.
"""

from typing import Any, Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule
from bench.importers.request_statistics import statistic, statistics_of_keys
from bench.importers.served import Served
from bench.importers.serving import serve_result

WANTED: Final = (
    *("results_num_completed_requests", "results_num_completed_requests_per_min", "num_concurrent_requests"),
    *("results_ttft_s_mean", "results_mean_output_throughput_token_per_s"),
)
MEASURED: Final = {
    "ttft_s": "ttft_s",
    "e2el_s": "end_to_end_latency_s",
    "latency_per_output_token_s": "inter_token_latency_s",
}
"""Name in ``load`` → measurement."""
KEPT: Final = (
    *("version", "name", "timestamp", "results_error_code_frequency", "results_error_rate"),
    *("mean_input_tokens", "stddev_input_tokens", "mean_output_tokens", "stddev_output_tokens"),
)


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("results_num_completed_requests", "results_num_completed_requests_per_min")


def entries(content: Content) -> list[ImportedResult]:
    """One serve point; totals are the means × the completed requests."""
    key = "results_num_completed_requests"
    completed = content.required(key, content.integer(key))
    per_minute = content.required(f"{key}_per_min", content.number(f"{key}_per_min"))
    statistics: dict[str, Known] = {}
    for name, measurement in MEASURED.items():
        statistics |= statistics_of_keys(content, name, _keys(content, measurement))
    served = Served(
        prompts=content.integer("results_num_requests_started"),
        completed=completed,
        failed=content.integer("results_number_errors", zero=True),
        limit=content.integer("num_concurrent_requests"),
        duration_s=by_rule("of_a_minute", 60 * completed.value / per_minute.value, completed, per_minute),
        input_tokens=_tokens(content, completed, "number_input_tokens"),
        output_tokens=_tokens(content, completed, "number_output_tokens"),
        requests_per_s=by_rule("of_a_minute", per_minute.value / 60, per_minute),
        output_tokens_per_s=content.number("results_mean_output_throughput_token_per_s"),
        input_range=_range(content, "number_input_tokens"),
        output_range=_range(content, "number_output_tokens"),
        statistics=statistics,
    )
    for measurement in ("number_input_tokens", "number_output_tokens", "request_output_throughput_token_per_s"):
        content.keep(*_keys(content, measurement).values())
    content.keep(*KEPT)
    return [serve_result(content, served, timed_by="llmperf", system="a server", model=content.text("model"))]


def _keys(content: Content, measurement: str) -> dict[str, str]:
    """Statistic → key of the file."""
    start = f"results_{measurement}_"
    found = {statistic(key.removeprefix(start).removeprefix("quantiles_")): key for key in _starting(content, start)}
    return {word: key for word, key in found.items() if word is not None}


def _starting(content: Content, start: str) -> list[str]:
    return [key for key in content.names() if key.startswith(start)]


def _tokens(content: Content, completed: Known, measurement: str) -> Known | None:
    mean = content.number(f"results_{measurement}_mean")
    return None if mean is None else by_rule("mean_times_requests", mean.value * completed.value, mean, completed)


def _range(content: Content, measurement: str) -> Known | None:
    keys = [f"results_{measurement}_{end}" for end in ("min", "max")]
    found: list[Any] = [content.number(key) for key in keys]
    if None in found:
        return None
    return Known((found[0].value, found[1].value), f"file: {', '.join(keys)}")
