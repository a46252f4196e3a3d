"""SGLang ``bench_offline_throughput``: many prompts given at once, with the time until the last has its answer."""

from typing import Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import by_rule
from bench.importers.served import Served
from bench.importers.serving import serve_result

WANTED: Final = (
    "successful_requests",
    "total_latency",
    "total_input_tokens",
    "total_output_tokens",
    "total_throughput",
)


def matches(content: Content) -> bool:
    """Whether the line has this format."""
    return content.has("successful_requests", "total_latency", "total_output_tokens")


def entries(content: Content) -> list[ImportedResult]:
    """One serve point at an infinite request rate; it has no latency of a request."""
    requests = content.required("successful_requests", content.integer("successful_requests"))
    served = Served(
        prompts=requests,
        completed=requests,
        duration_s=content.required("total_latency", content.number("total_latency")),
        input_tokens=content.required("total_input_tokens", content.integer("total_input_tokens")),
        output_tokens=content.required("total_output_tokens", content.integer("total_output_tokens")),
        requests_per_s=content.number("request_throughput"),
        input_tokens_per_s=content.number("input_throughput"),
        output_tokens_per_s=content.number("output_throughput"),
        tokens_per_s=content.number("total_throughput"),
        request_rate_per_s=by_rule("all_at_once", "inf"),
    )
    backend = content.text("backend")
    content.keep("last_gen_throughput")
    return [
        serve_result(
            content,
            served,
            timed_by="sglang bench_offline_throughput",
            system="sglang" if backend is None else f"sglang {backend.value}",
        )
    ]
