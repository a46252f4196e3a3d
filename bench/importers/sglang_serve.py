"""SGLang ``bench_serving``: a line for each load that a server was put under, with times in milliseconds."""

from typing import Any, Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from bench.importers.request_statistics import statistics_of_keys
from bench.importers.served import Served
from bench.importers.serving import rate_asked, serve_result, statistics_of
from bench.importers.sglang_server import server_setting

WANTED: Final = (
    "total_output_tokens_retokenized",
    "total_input_tokens",
    "total_output_tokens",
    "completed",
    "duration",
)
KEPT: Final = (
    *("tag", "dataset_name", "sharegpt_output_len", "random_input_len", "random_output_len", "random_range_ratio"),
    *("total_input_text_tokens", "total_output_tokens_retokenized", "max_output_tokens_per_s", "max_itl_ms"),
    *("ttfts", "itls", "generated_texts", "errors", "input_lens", "output_lens"),
)


def matches(content: Content) -> bool:
    """Whether the line has this format."""
    return content.has("total_output_tokens_retokenized", "total_input_tokens", "completed", "duration")


def entries(content: Content) -> list[ImportedResult]:
    """One serve point: its batch is the most requests in flight, its lengths are tokens a completed request."""
    content.off("accept_length", "is the accepted length of speculative decoding")
    content.off("total_input_vision_tokens", "are tokens of images", 0)
    content.off("cache_report.cache_hit_rate_pct", "is a share of prompts that a cache answered", 0)
    content.keep("cache_report.*", *KEPT)
    prompts, completed = _listed(content), content.required("completed", content.integer("completed"))
    # A request that failed is listed too, with no output.
    whole = prompts is not None and prompts.value == completed.value
    trace = content.values.get("request_rate") == "trace"
    if trace:
        content.keep("request_rate")
    served = Served(
        prompts=prompts,
        completed=completed,
        limit=content.integer("max_concurrency"),
        peak=content.integer("max_concurrent_requests"),
        duration_s=content.required("duration", content.number("duration")),
        input_tokens=content.required("total_input_tokens", content.integer("total_input_tokens")),
        output_tokens=content.required("total_output_tokens", content.integer("total_output_tokens")),
        requests_per_s=content.number("request_throughput"),
        input_tokens_per_s=content.number("input_throughput"),
        output_tokens_per_s=content.number("output_throughput"),
        tokens_per_s=content.number("total_throughput"),
        request_rate_per_s=None if trace else rate_asked(content, "request_rate"),
        input_lens=content.numbers("input_lens") if whole else None,
        output_lens=content.numbers("output_lens") if whole else None,
        statistics={**statistics_of(content, suffix="_ms", scale=1e-3), **_whole_requests(content)},
        more=stated(mean_concurrency=content.number("concurrency")),
    )
    system = content.text("backend")
    setting = server_setting(content, "server_info")
    return [
        serve_result(
            content,
            served,
            timed_by="sglang bench_serving",
            system="a server" if system is None else str(system.value),
            point=setting.point,
            model=setting.model,
            needs=setting.needs,
            check=setting.check,
        )
    ]


def _whole_requests(content: Content) -> dict[str, Known]:
    """Statistics of the time of a request from start to end, which SGLang calls ``e2e_latency``."""
    ending = "_e2e_latency_ms"
    keys = {key.removesuffix(ending): key for key in content.names() if key.endswith(ending)}
    return statistics_of_keys(content, "e2el_s", keys, scale=1e-3)


def _listed(content: Content) -> Known | None:
    """All requests, where the file lists an error, or none, for each."""
    errors: Any = content.values.get("errors")
    if not isinstance(errors, list) or not errors:
        return None
    return by_rule("requests_listed", len(errors), Known(errors, "file: errors"))
