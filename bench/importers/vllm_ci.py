"""vLLM's ``*.pytorch.json``: the results of a benchmark as a record for each metric, beside the command's arguments."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from bench.importers.content import Content
from bench.importers.known import by_rule, stated
from bench.importers.number_formats import number_format, of_weights
from bench.importers.setting import Setting

ARGS: Final = "benchmark.extra_info.args"
OFF: Final = (
    ("n", "samples several sequences a request", 1),
    ("use_beam_search", "is beam search", False),
    ("speculative_config", "is speculative decoding", None),
    ("speculative_model", "is speculative decoding", None),
    ("enable_lora", "is an adapter beside the model's weights", False),
    ("lora_path", "is an adapter beside the model's weights", None),
    ("lora_modules", "are adapters beside the model's weights", None),
    ("data_parallel_size", "is several copies of the model", 1),
    ("prefill_context_parallel_size", "splits a prompt over chips", 1),
    ("decode_context_parallel_size", "splits the cache over chips", 1),
    ("cpu_offload_gb", "keeps weights outside of the chips", 0),
    ("hf_overrides", "changes the model", None),
    ("ramp_up_strategy", "is a rate that rises in the run", None),
)
"""Argument → what it means when it is not the value beside it, or null."""
WHOLE: Final = "latency"
"""The one metric whose values are those of single runs, which the result calls ``latencies``."""


def gather(values: Any) -> list[Mapping[str, Any]] | None:
    """The results of which a list of records was made, with the keys of the benchmarks' own files; None of other lists.

    Records with the same arguments and the same further figures are of one run.
    """
    if not isinstance(values, list) or not values or not all(map(_is_record, values)):
        return None
    runs: dict[str, dict[str, Any]] = {}
    for record in values:
        metric, benchmark = record["metric"], record["benchmark"]
        further = metric["extra_info"] if isinstance(metric.get("extra_info"), Mapping) else {}
        name = json.dumps([benchmark, further], sort_keys=True, default=str)
        while metric["name"] in runs.get(name, {}):
            name += "'"  # the same again is another run
        run = runs.setdefault(name, {**further, "benchmark": benchmark, "model": record.get("model")})
        figures = metric["benchmark_values"]
        run[metric["name"]] = figures[0] if metric["name"] != WHOLE and len(figures) == 1 else figures
    return [{("latencies" if key == WHOLE else key): value for key, value in run.items()} for run in runs.values()]


def setting_of_args(content: Content) -> Setting:
    """The setting that the command's arguments make; an empty one if there are none.

    Raises:
        ShardbenchError: the benchmark did what no row can say.
    """
    if not content.names(ARGS):
        return Setting()
    for key, meaning, allowed in OFF:
        content.off(f"{ARGS}.{key}", meaning, *(() if allowed is None else (allowed,)))
    tensor = content.integer(f"{ARGS}.tensor_parallel_size")
    pipeline = content.integer(f"{ARGS}.pipeline_parallel_size")
    formats = of_weights(content, f"{ARGS}.dtype", f"{ARGS}.quantization")
    chips = None
    if tensor is not None:
        degrees = tensor.value * (1 if pipeline is None else pipeline.value)
        chips = by_rule("chips_of_degrees", degrees, tensor, pipeline)
    point = stated(
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        num_chips=chips,
        kv_dtype=number_format(content, f"{ARGS}.kv_cache_dtype"),
    )
    return replace(formats, point={**formats.point, **point}, model=content.text(f"{ARGS}.model"))


def keep_args(content: Content) -> None:
    """Record the arguments and the settings beside them; to be called when those that matter are read."""
    content.keep("benchmark.*", "model.*")


def _is_record(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("benchmark"), Mapping)
        and isinstance(value.get("metric"), Mapping)
        and isinstance(value["metric"].get("name"), str)
        and isinstance(value["metric"].get("benchmark_values"), list)
    )
