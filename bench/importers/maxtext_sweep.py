"""MaxText's ``inference_microbenchmark_sweep`` lines: flat ``metrics``, in milliseconds, beside ``dimensions``."""

import re
from dataclasses import replace
from typing import Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from bench.importers.maxtext import decode_result, prefill_result
from bench.importers.number_formats import of_weights
from bench.importers.serving_checks import agree
from engines.core.errors import ShardbenchError

WANTED: Final = ("metrics.autoregressive_step_in_ms", "metrics.autoregressive_global_batch_size", "dimensions")
PREFILL: Final = re.compile(r"prefill_(\d+)_time_in_ms")
DIMENSIONS: Final = (
    *("tokenizer", "base_output_directory", "attention", "scan_layers", "profiler", "reshape_q", "run_name"),
    *("max_prefill_predict_length", "max_target_length", "key_value_axis_order_product_id"),
    *("ici_fsdp_parallelism", "ici_autoregressive_parallelism", "ici_tensor_parallelism"),
    *("prefill_cache_axis_order", "ar_cache_axis_order", "compute_axis_order"),
    *("inference_microbenchmark_prefill_lengths", "inference_microbenchmark_stages"),
    "inference_microbenchmark_loop_iters",
)
"""Dimensions that change no figure of a row."""
RATES: Final = re.compile(r"(prefill_\d+|autoregressive)_(total_)?(tflops|bw|tokens)\w*")
STEP: Final = "metrics.autoregressive_step_in_ms"
BATCH: Final = "metrics.autoregressive_global_batch_size"


def matches(content: Content) -> bool:
    """Whether the line has this format."""
    return content.has("dimensions") and (content.has(STEP) or bool(_lengths(content)))


def entries(content: Content) -> list[ImportedResult]:
    """A prefill point of one prompt for each length, and a decode point of one step over the global batch."""
    content.off("dimensions.oom", "is a run that did not fit in memory", "false")
    content.off("dimensions.quantize_kvcache", "quantises the cache, to a format that the line does not state", "false")
    formats = of_weights(content, "dimensions.weight_dtype", "dimensions.quantization")
    batch, step = content.integer(BATCH), content.number(STEP, scale=1e-3)
    chips = stated(num_chips=_chips(content, batch))
    model = content.text("dimensions.model_name")
    setting = replace(formats, point={**formats.point, **chips}, model=model)
    found = []
    for length, key in _lengths(content).items():
        time = content.required(key, content.number(key, scale=1e-3))
        found.append(prefill_result(time, Known(length, f"file: {key}"), setting))
    if step is not None:
        _check_step(content, step, batch)
        found.append(decode_result(step, batch, setting))
    if not found:
        raise ShardbenchError(f"{content.where}: {STEP} is missing; import an unmodified file")
    content.keep(*(f"dimensions.{key}" for key in DIMENSIONS), *_rates(content))
    return found


def _rates(content: Content) -> list[str]:
    """Figures that MaxText derives from its times."""
    return [f"metrics.{key}" for key in content.names("metrics") if RATES.fullmatch(key)]


def _lengths(content: Content) -> dict[int, str]:
    """Prompt length → key of its time."""
    names = [(name, PREFILL.fullmatch(name)) for name in content.names("metrics")]
    return {int(found[1]): f"metrics.{name}" for name, found in names if found is not None and int(found[1])}


def _chips(content: Content, batch: Known | None) -> Known | None:
    """The devices over which the global batch was spread; a line says the batch of each as text."""
    key = "dimensions.per_device_batch_size"
    known = content.value(key)
    if known is None or batch is None:
        return None
    try:
        each = float(known.value)
        chips = batch.value / each
    except (TypeError, ValueError, ZeroDivisionError):
        raise content.invalid(key, known.value, "a number > 0") from None
    if chips < 1 or abs(chips - round(chips)) > 1e-6 * chips:
        raise content.refused(key, f"does not divide the global batch {batch.value}", "import an unmodified file")
    return by_rule("chips_of_batch", round(chips), batch, known)


def _check_step(content: Content, step: Known, batch: Known | None) -> None:
    if batch is None:
        return
    rate = content.number("metrics.autoregressive_total_throughput_tokens_per_second")
    agree(content, rate, batch.value / step.value, batch, step)
    agree(content, content.number(f"{STEP}_per_seq", scale=1e-3), step.value / batch.value, step, batch)
