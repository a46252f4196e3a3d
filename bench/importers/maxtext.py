"""MaxText's ``inference_microbenchmark`` results, with times in milliseconds.

``prefill`` holds one measurement, or one per prompt length. ``autoregressive`` holds the time of a decode step.
"""

from typing import Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from bench.importers.setting import Setting
from engines.core.errors import ShardbenchError

WANTED: Final = ("prefill.time_in_ms", "autoregressive.step_in_ms")
TIMED_BY: Final = "MaxText inference_microbenchmark"
SYSTEM: Final = "maxtext"
KEPT: Final = (
    "autoregressive.total_throughput_tokens_per_second",
    "autoregressive.tflops_per_sec_per_device",
    "autoregressive.bw_per_device_GB_per_second",
    "sizes.*",
)


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("autoregressive.step_in_ms") or bool(_prefills(content))


def entries(content: Content) -> list[ImportedResult]:
    """A prefill point per measured prompt length, and a decode point of one step over the global batch.

    A prefill call reads one prompt; the batch of a decode step is its throughput × its time, where the file has that.
    """
    found = []
    for path, input_len in _prefills(content).items():
        time = content.required(f"{path}.time_in_ms", content.number(f"{path}.time_in_ms", scale=1e-3))
        content.keep(*(f"{path}.{key}" for key in content.names(path) if key.startswith(("tflops", "total_tflops"))))
        length = None if input_len is None else Known(input_len, f"file: {path}")
        found.append(prefill_result(time, length, Setting()))
    step = content.number("autoregressive.step_in_ms", scale=1e-3)
    if step is not None:
        found.append(decode_result(step, _batch(content, step), Setting()))
    if not found:
        raise ShardbenchError(
            f"{content.where}: prefill.time_in_ms and autoregressive.step_in_ms are missing; import an unmodified file"
        )
    content.keep(*KEPT)
    return found


def prefill_result(
    time: Known,
    length: Known | None,
    setting: Setting,
) -> ImportedResult:
    """A prefill of one prompt of ``length`` tokens in ``time`` seconds, with what else is known of the run."""
    return ImportedResult(
        phase="prefill",
        timed_by=TIMED_BY,
        system=SYSTEM,
        point={**setting.point, **stated(input_len=length, batch_size=by_rule("one_prompt_a_call", 1))},
        figures=stated(latency_s=time, ttft_s=by_rule("prefill_is_first_token", time.value, time)),
        model=setting.model,
        check=setting.check,
        needs=setting.needs,
    )


def decode_result(
    step: Known,
    batch: Known | None,
    setting: Setting,
) -> ImportedResult:
    """One decode step of ``step`` seconds over the global ``batch``, with what else is known of the run."""
    return ImportedResult(
        phase="decode",
        timed_by=TIMED_BY,
        system=SYSTEM,
        point={**setting.point, **stated(output_len=by_rule("one_step", 1), batch_size=batch)},
        figures=stated(latency_s=step, step_time_s=step),
        model=setting.model,
        check=setting.check,
        needs={
            **setting.needs,
            "batch_size": "the file does not state the global batch of a decode step",
            "input_len": "the file does not state the tokens in the cache",
        },
    )


def _batch(content: Content, step: Known) -> Known | None:
    """The global batch, which MaxText's throughput of a step was made of."""
    stated_batch = content.integer("autoregressive.global_batch_size")
    key = "autoregressive.total_throughput_tokens_per_second"
    rate = content.number(key)
    if rate is None:
        return stated_batch
    batch = rate.value * step.value
    whole = round(batch)
    if whole < 1 or abs(batch - whole) > 0.01 * whole or (stated_batch is not None and stated_batch.value != whole):
        raise content.refused(
            key, f"× step_in_ms is a batch of {batch:.6g}, which is not that of the file", "import an unmodified file"
        )
    return stated_batch or by_rule("batch_of_step", whole, rate, step)


def _prefills(content: Content) -> dict[str, int | None]:
    """Path of each prefill measurement → its prompt length, None if the file does not state it."""
    if content.has("prefill.time_in_ms"):
        return {"prefill": None}
    lengths = [key for key in content.names("prefill") if key.isdigit() and int(key) > 0]
    return {f"prefill.{key}": int(key) for key in lengths}
