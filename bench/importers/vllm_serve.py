"""``vllm bench serve --save-result``: a server under load, with times in milliseconds."""

from typing import Any, Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult, Load
from engines.core.engine import Estimate, Facts

KEPT: Final = ("date", "label", "request_rate", "burstiness", "max_concurrency", "num_prompts", "completed")


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("request_throughput", "total_input_tokens")


def entries(content: Content) -> list[ImportedResult]:
    """One generate point under load: batch_size is ``max_concurrency``, lengths are tokens per completed request.

    A point has one length for all requests, so the user must give a length that differs between requests.
    """
    completed = content.required("completed", content.integer("completed"))
    stated: dict[str, Any] = {"first_token": "prefill"}
    needs = {"batch_size": "the file has no max_concurrency (requests in flight)"}
    for key, total in (("input_len", "total_input_tokens"), ("output_len", "total_output_tokens")):
        tokens = content.required(total, content.integer(total))
        if (tokens / completed).is_integer():
            stated[key] = int(tokens / completed)
        else:
            needs[key] = f"requests differ and have {tokens / completed:g} tokens on average"
    concurrency = content.integer("max_concurrency")
    if concurrency is not None:
        stated["batch_size"] = concurrency
    rate = content.positive("total_token_throughput")
    load = Load(
        tokens_per_s=content.required("total_token_throughput", rate),
        ttft_s=content.seconds_of_ms("median_ttft_ms"),
        tpot_s=content.seconds_of_ms("median_tpot_ms"),
    )
    backend = content.text("backend") or content.text("endpoint_type")
    details = {"timed_by": "vllm bench serve", "kept": {key: content.raw(key) for key in KEPT if content.has(key)}}
    return [
        ImportedResult(
            phase="generate",
            stated=stated,
            estimate=Estimate(system=backend or "vllm", facts=Facts(details=details)),
            model_name=content.text("model_id"),
            load=load,
            needs=needs,
        )
    ]
