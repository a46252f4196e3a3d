"""JetStream ``benchmark_serving.py --save-result``: a server under load, with times in milliseconds.

Its ``tpot`` divides the whole time of a request by its tokens, the first among them, and so is no time per output token
after the first.
"""

from typing import Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.served import Served
from bench.importers.serving import rate_asked, serve_result, statistics_of

WANTED: Final = ("metrics.num_prompts", "metrics.completed", "metrics.total_input_tokens", "dimensions.model_id")
NOT_FROM_THE_FIRST: Final = "tpot_s."


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("metrics.total_input_tokens", "metrics.completed", "dimensions")


def entries(content: Content) -> list[ImportedResult]:
    """One serve point: all prompts may be in flight at once, since the file has no limit."""
    statistics = statistics_of(content, suffix="_ms", scale=1e-3, under="metrics")
    number, count = content.number, content.integer
    served = Served(
        prompts=count("metrics.num_prompts"),
        completed=content.required("metrics.completed", count("metrics.completed")),
        duration_s=content.required("metrics.duration", number("metrics.duration")),
        input_tokens=content.required("metrics.total_input_tokens", count("metrics.total_input_tokens")),
        output_tokens=content.required("metrics.total_output_tokens", count("metrics.total_output_tokens")),
        requests_per_s=number("metrics.request_throughput"),
        input_tokens_per_s=number("metrics.input_throughput"),
        output_tokens_per_s=number("metrics.output_throughput"),
        request_rate_per_s=rate_asked(content, "metrics.request_rate"),
        statistics={
            key.replace(NOT_FROM_THE_FIRST, "latency_per_output_token_s."): known for key, known in statistics.items()
        },
    )
    content.keep("dimensions.*")
    return [
        serve_result(
            content,
            served,
            timed_by="jetstream benchmark_serving",
            system="jetstream",
            model=content.text("dimensions.model_id"),
            mixed_lengths=True,  # its prompts are those of a conversation dataset
        )
    ]
