"""TensorRT-LLM ``trtllm-bench throughput`` and ``latency`` with ``--report_json``, times in milliseconds."""

from typing import Any, Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from bench.importers.number_formats import number_format, of_weights
from bench.importers.request_statistics import statistics_at, statistics_of_keys
from bench.importers.served import Served
from bench.importers.serving import serve_result

WANTED: Final = (
    *("engine.backend", "world_info.tp_size", "request_info.num_requests"),
    *("request_info.avg_input_length", "request_info.avg_output_length", "performance.total_latency_ms"),
)
KEPT: Final = (
    *("engine.model_path", "engine.engine_dir", "engine.revision", "engine.version", "engine.max_input_length"),
    *("engine.max_sequence_length", "machine.*", "dataset.*"),
    *("world_info.ep_size", "world_info.gpus_per_node", "world_info.max_batch_size", "world_info.max_num_tokens"),
    *("world_info.scheduling_policy", "world_info.kv_cache_percentage", "world_info.issue_rate"),
    *("performance.output_throughput_per_user_tok_s", "performance.output_throughput_per_gpu_tok_s"),
    "streaming_metrics.token_output_speed_tok_s",
)
PERCENTILES: Final = {
    "e2el_s": ("performance.request_latency_percentiles_ms", "performance.avg_request_latency_ms"),
    "ttft_s": ("streaming_metrics.ttft_percentiles", "streaming_metrics.avg_ttft_ms"),
    "tpot_s": ("streaming_metrics.tpot_percentiles", "streaming_metrics.avg_tpot_ms"),
}
"""Name in ``load`` → the keys of its percentiles and of its mean."""


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("world_info", "request_info", "performance.total_latency_ms")


def entries(content: Content) -> list[ImportedResult]:
    """One serve point: tokens are the average lengths × requests, all requests may be in flight at once."""
    content.off("decoding_stats", "is speculative decoding")
    requests = content.required("request_info.num_requests", content.integer("request_info.num_requests"))
    duration_key = "performance.total_latency_ms"
    statistics: dict[str, Known] = {}
    for name, (percentiles, mean) in PERCENTILES.items():
        statistics |= statistics_at(content, name, percentiles, scale=1e-3)
        statistics |= statistics_of_keys(content, name, {"mean": mean}, scale=1e-3)
    served = Served(
        prompts=requests,
        completed=requests,
        duration_s=content.required(duration_key, content.number(duration_key, scale=1e-3)),
        input_tokens=_tokens(content, requests, "request_info.avg_input_length"),
        output_tokens=_tokens(content, requests, "request_info.avg_output_length"),
        requests_per_s=content.number("performance.request_throughput_req_s"),
        output_tokens_per_s=content.number("performance.system_output_throughput_tok_s"),
        tokens_per_s=content.number("performance.system_total_throughput_tok_s"),
        input_range=_range(content, "dataset.isl_stats"),
        output_range=_range(content, "dataset.osl_stats"),
        statistics=statistics,
        more=stated(mean_concurrency=content.number("request_info.avg_num_concurrent_requests")),
    )
    formats = of_weights(content, "engine.dtype", "engine.quantization")
    backend = content.text("engine.backend")
    model, machine = content.text("engine.model"), content.text("machine.name")
    point = stated(**_chips(content), **formats.point, kv_dtype=number_format(content, "engine.kv_cache_dtype"))
    content.keep(*KEPT)
    return [
        serve_result(
            content,
            served,
            timed_by="trtllm-bench",
            system="tensorrt-llm" if backend is None else f"tensorrt-llm {backend.value}",
            point=point,
            model=model,
            hw=machine,
            needs=formats.needs,
            check=formats.check,
        )
    ]


def _chips(content: Content) -> dict[str, Known | None]:
    tensor, pipeline = content.integer("world_info.tp_size"), content.integer("world_info.pp_size")
    if tensor is None:
        return {}
    chips = by_rule("chips_of_degrees", tensor.value * (1 if pipeline is None else pipeline.value), tensor, pipeline)
    world = content.integer("world_info.world_size")
    if world is not None and world.value != chips.value:
        raise content.refused(
            "world_info.world_size", f"is not tp_size × pp_size, which is {chips.value}", "import an unmodified file"
        )
    return {"tensor_parallel": tensor, "pipeline_parallel": pipeline, "num_chips": chips}


def _tokens(content: Content, requests: Known, mean_key: str) -> Known:
    mean = content.required(mean_key, content.number(mean_key))
    return by_rule("mean_times_requests", mean.value * requests.value, mean, requests)


def _range(content: Content, path: str) -> Known | None:
    found: list[Any] = [content.number(f"{path}.{key}") for key in ("minimum", "maximum")]
    if None in found:
        return None
    return Known((found[0].value, found[1].value), f"file: {path}.minimum, {path}.maximum")
