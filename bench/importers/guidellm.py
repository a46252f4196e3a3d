"""GuideLLM ``benchmarks.json``: a server under one load after another."""

from collections.abc import Mapping
from typing import Any, Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from bench.importers.request_statistics import statistics_at, statistics_of_keys
from bench.importers.served import Served
from bench.importers.serving import most_in_flight, serve_result

WANTED: Final = ("benchmark.metrics.tokens_per_second", "benchmark.metrics.time_to_first_token_ms", "metadata")
METRICS: Final = "benchmark.metrics"
TIMES: Final = {
    "ttft_s": ("time_to_first_token_ms", 1e-3),
    "tpot_s": ("inter_token_latency_ms", 1e-3),
    "e2el_s": ("request_latency", 1.0),
    "latency_per_output_token_s": ("time_per_output_token_ms", 1e-3),
}
"""Name in ``load`` → metric, and its unit in seconds. The inter-token latency of a request is the mean of its tokens
after the first; its time per output token counts the first as well."""
PERCENTILES: Final = {
    **{"p001": "p0.1", "p01": "p1", "p05": "p5", "p10": "p10", "p25": "p25", "p50": "p50"},
    **{"p75": "p75", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"},
}
"""GuideLLM's name of a percentile, whose digits follow the point of a share → percent."""
STRATEGY: Final = ("benchmark.config.strategy", "benchmark.scheduler.strategy", "benchmark.args.strategy")
MODEL: Final = (
    *("benchmark.config.backend.model", "config.spec.backend.model", "config.backend.model"),
    *("benchmark.backend.model", "benchmark.worker.backend_model", "args.model"),
)
REQUESTS: Final = ("request_totals", "benchmark.scheduler_metrics.requests_made", "benchmark.run_stats.requests_made")
APART: Final = 0.25
"""Most that the rates of a benchmark differ: they leave out different parts of its start and end."""


def gather(values: Any) -> list[Mapping[str, Any]] | None:
    """The benchmarks of a report, each with what the report says of all; None of other content."""
    benchmarks = values.get("benchmarks") if isinstance(values, dict) else None
    if not isinstance(benchmarks, list) or not benchmarks:
        return None
    if not all(isinstance(each, dict) and isinstance(each.get("metrics"), dict) for each in benchmarks):
        return None
    common = {key: value for key, value in values.items() if key != "benchmarks"}
    return [{**common, "benchmark": each} for each in benchmarks]


def matches(content: Content) -> bool:
    """Whether the result has this format."""
    return content.has(f"{METRICS}.tokens_per_second", f"{METRICS}.request_latency")


def entries(content: Content) -> list[ImportedResult]:
    """One serve point of the requests that succeeded, by the means of its rates."""
    statistics: dict[str, Known] = {}
    for name, (metric, scale) in TIMES.items():
        path = f"{METRICS}.{metric}.successful"
        percentiles = {word: f"{path}.percentiles.{key}" for key, word in PERCENTILES.items()}
        statistics |= statistics_at(content, name, path, scale)
        statistics |= statistics_of_keys(content, name, percentiles, scale)
        content.keep(f"{METRICS}.{metric}.*")
    rates = {
        key: content.number(f"{METRICS}.{key}.successful.mean")
        for key in ("requests_per_second", "output_tokens_per_second", "tokens_per_second", "request_concurrency")
    }
    means = {key: content.number(f"{METRICS}.{key}_token_count.successful.mean") for key in ("prompt", "output")}
    made = next((key for key in _totals() if content.names(key)), _totals()[0])
    completed = content.integer(f"{made}.successful")
    _check_rates(content, rates, means)
    limit, made_total = _limit(content), content.integer(f"{made}.total")
    served = Served(
        prompts=made_total,
        completed=completed,
        failed=content.integer(f"{made}.errored", zero=True),
        input_tokens=_tokens(means["prompt"], completed),
        output_tokens=_tokens(means["output"], completed),
        requests_per_s=rates["requests_per_second"],
        output_tokens_per_s=rates["output_tokens_per_second"],
        tokens_per_s=content.required(f"{METRICS}.tokens_per_second.successful.mean", rates["tokens_per_second"]),
        request_rate_per_s=_rate(content),
        input_range=_range(content, "prompt"),
        output_range=_range(content, "output"),
        statistics=statistics,
        # Not the limit of requests inside of the window: it cuts off requests at both ends, which are not counted.
        more=stated(mean_concurrency=rates["request_concurrency"], max_concurrency=limit),
    )
    model = next((known for key in MODEL if (known := content.text(key)) is not None), None)
    content.keep("metadata.*", "config.*", "args.*", "benchmark.*")
    point = stated(batch_size=most_in_flight(limit, made_total))
    return [serve_result(content, served, timed_by="guidellm", system="a server", point=point, model=model)]


def _totals() -> tuple[str, ...]:
    return (f"{METRICS}.request_totals", *(key if "." in key else f"benchmark.{key}" for key in REQUESTS))


def _strategy(content: Content) -> str:
    return next((path for path in STRATEGY if content.names(path)), STRATEGY[0])


def _limit(content: Content) -> Known | None:
    """The most requests in flight: of a concurrent load its streams, of requests one by one 1."""
    path = _strategy(content)
    kind = content.text(f"{path}.type_")
    if kind is not None and kind.value == "synchronous":
        return by_rule("one_request", 1, kind)
    return content.integer(f"{path}.streams") or content.integer(f"{path}.max_concurrency")


def _rate(content: Content) -> Known | None:
    path = _strategy(content)
    kind = content.text(f"{path}.type_")
    if kind is not None and kind.value == "throughput":
        return by_rule("all_at_once", "inf", kind)
    return content.number(f"{path}.rate")


def _tokens(mean: Known | None, completed: Known | None) -> Known | None:
    if mean is None or completed is None:
        return None
    return by_rule("mean_times_requests", mean.value * completed.value, mean, completed)


def _range(content: Content, key: str) -> Known | None:
    path = f"{METRICS}.{key}_token_count.successful"
    found: list[Any] = [content.number(f"{path}.{end}", zero=True) for end in ("min", "max")]
    if None in found:
        return None
    return Known((found[0].value, found[1].value), f"file: {path}.min, {path}.max")


def _check_rates(content: Content, rates: Mapping[str, Known | None], means: Mapping[str, Known | None]) -> None:
    """Tokens/s are about requests/s × tokens a request."""
    requests, prompt, output = rates["requests_per_second"], means["prompt"], means["output"]
    if requests is None or prompt is None or output is None:
        return
    for key, length in (
        ("tokens_per_second", prompt.value + output.value),
        ("output_tokens_per_second", output.value),
    ):
        rate = rates[key]
        if rate is not None and not 1 - APART <= rate.value / (requests.value * length) <= 1 / (1 - APART):
            raise content.refused(
                f"{METRICS}.{key}.successful.mean",
                f"is far from the {requests.value * length:.6g} that requests/s × tokens a request make",
                "import an unmodified file",
            )
