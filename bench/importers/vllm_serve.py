"""``vllm bench serve --save-result``: a server under load, with times in milliseconds."""

from typing import Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known
from bench.importers.served import Served
from bench.importers.serving import rate_asked, serve_result, statistics_of
from bench.importers.vllm_ci import keep_args, setting_of_args

WANTED: Final = ("request_throughput", "total_input_tokens", "completed", "duration", "num_prompts", "model_id")
KEPT: Final = (
    *("date", "label", "tokenizer_id", "version", "endpoint", "endpoint_type", "backend", "rtfx"),
    *("input_lens", "output_lens"),
    *("max_output_tokens_per_s", "errors", "ttfts", "itls", "tpots", "generated_texts", "start_times"),
    *("ramp_up_strategy", "ramp_up_start_rps", "ramp_up_end_rps", "tensor_parallel_size"),
)
GOODPUT: Final = ("request_goodput", "request_goodput:")
"""Older versions wrote a colon."""


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("request_throughput", "total_input_tokens", "model_id") and content.has("num_prompts")


def entries(content: Content) -> list[ImportedResult]:
    """One serve point: its batch is the most requests in flight, its lengths are tokens a completed request."""
    content.off("use_beam_search", "is beam search: several sequences a request")
    content.off("best_of", "samples several sequences a request", 1)
    statistics = statistics_of(content, suffix="_ms", scale=1e-3)
    failed = content.integer("failed", zero=True)
    # The lists hold failed requests too, with no output.
    listed = failed is not None and not failed.value
    served = Served(
        prompts=content.required("num_prompts", content.integer("num_prompts")),
        completed=content.required("completed", content.integer("completed")),
        failed=failed,
        limit=content.integer("max_concurrency"),
        peak=content.integer("max_concurrent_requests"),
        duration_s=content.required("duration", content.number("duration")),
        input_tokens=content.required("total_input_tokens", content.integer("total_input_tokens")),
        output_tokens=content.required("total_output_tokens", content.integer("total_output_tokens")),
        requests_per_s=content.number("request_throughput"),
        input_tokens_per_s=content.number("input_throughput"),
        output_tokens_per_s=content.number("output_throughput"),
        tokens_per_s=content.number("total_token_throughput"),
        request_rate_per_s=rate_asked(content, "request_rate"),
        burstiness=content.number("burstiness"),
        goodput_requests_per_s=_goodput(content),
        input_lens=content.numbers("input_lens") if listed else None,
        output_lens=content.numbers("output_lens") if listed else None,
        statistics=statistics,
    )
    setting = setting_of_args(content)
    keep_args(content)
    system = content.text("backend") or content.text("endpoint_type")
    content.keep(*KEPT)
    return [
        serve_result(
            content,
            served,
            timed_by="vllm bench serve",
            system="a server" if system is None else str(system.value),
            point=setting.point,
            model=content.text("model_id"),
            needs=setting.needs,
            check=setting.check,
        )
    ]


def _goodput(content: Content) -> Known | None:
    key = next((key for key in GOODPUT if content.has(key)), GOODPUT[0])
    return content.number(key, zero=True)
