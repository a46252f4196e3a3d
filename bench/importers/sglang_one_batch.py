"""SGLang ``bench_one_batch`` and ``bench_one_batch_server``: a static batch a line, with times in seconds.

The first calls the model itself and times its passes; the second sends one batch to a server and times the whole.
"""

from functools import partial
from typing import Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from bench.importers.serving_checks import ROUNDING, agree

WANTED: Final = ("batch_size", "input_len", "output_len", "overall_throughput", "latency")
KEPT: Final = (
    *("run_name", "last_gen_throughput", "profile_link"),
    *("steady_state_output_throughput", "steady_state_window_s"),
)
SYSTEM: Final = "sglang"
HALF_A_DECIMAL: Final = 0.5e-4
"""Seconds up to which ``bench_one_batch_server`` rounds its times."""


def matches(content: Content) -> bool:
    """Whether the line has this format."""
    return content.has("batch_size", "input_len", "output_len", "overall_throughput") and (
        content.has("latency") or content.has("total_latency")
    )


def entries(content: Content) -> list[ImportedResult]:
    """A generate point; of ``bench_one_batch`` also its prefill, and the decode that is the rest of the total.

    Raises:
        ShardbenchError: the rates of the file are not its tokens over its times.
    """
    batch = content.required("batch_size", content.integer("batch_size"))
    input_len = content.required("input_len", content.integer("input_len"))
    output_len = content.required("output_len", content.integer("output_len"))
    point = stated(batch_size=batch, input_len=input_len, output_len=output_len)
    content.keep(*KEPT)
    return _of_passes(content, point) if content.has("total_latency") else _of_server(content, point)


def _of_passes(content: Content, point: dict[str, Known]) -> list[ImportedResult]:
    batch, input_len, output_len = (point[key].value for key in ("batch_size", "input_len", "output_len"))
    total = content.required("total_latency", content.number("total_latency"))
    prefill = content.required("prefill_latency", content.number("prefill_latency"))
    step = content.number("median_decode_latency")
    agree(content, content.number("prefill_throughput"), batch * input_len / prefill.value, prefill)
    agree(content, content.number("overall_throughput"), batch * (input_len + output_len) / total.value, total)
    if step is not None:
        agree(content, content.number("median_decode_throughput"), batch / step.value, step)
    if prefill.value > total.value:
        raise content.refused("prefill_latency", "is above total_latency", "import an unmodified file")
    result = partial(ImportedResult, timed_by="sglang bench_one_batch", system=SYSTEM)
    first = by_rule("prefill_is_first_token", prefill.value, prefill)
    found = [
        result(
            phase="generate",
            point={**point, "first_token": by_rule("first_token_of_prompt", "prefill")},
            figures=stated(latency_s=total, ttft_s=first),
        ),
        result(
            phase="prefill",
            point=stated(batch_size=point["batch_size"], input_len=point["input_len"]),
            figures=stated(latency_s=prefill, ttft_s=first),
        ),
    ]
    if output_len > 1:
        steps = by_rule("steps_after_first", output_len - 1, point["output_len"])
        decode = by_rule("rest_of_total", total.value - prefill.value, total, prefill)
        found.append(result(phase="decode", point={**point, "output_len": steps}, figures=stated(latency_s=decode)))
        _check_step(content, step, decode.value / steps.value, steps.value)
    return found


def _check_step(content: Content, step: Known | None, mean: float, steps: int) -> None:
    """Half of the steps, rounded up, take the median or longer, which bounds it by the mean."""
    if step is not None and step.value > 1.01 * mean * steps / ((steps + 1) // 2):
        raise content.refused(
            "median_decode_latency", f"is too long for a mean of {mean:.6g} s a step", "import an unmodified file"
        )


def _of_server(content: Content, point: dict[str, Known]) -> list[ImportedResult]:
    batch, input_len, output_len = (point[key].value for key in ("batch_size", "input_len", "output_len"))
    content.off("acc_length", "is the accepted length of speculative decoding", -1, 0, 1)
    content.off("cache_hit_rate", "is a share of prompts that a cache answered", 0)
    content.off("num_early_stopped", "requests stopped before output_len tokens", 0)
    latency = content.required("latency", content.number("latency"))
    made = content.integer("total_output_tokens")
    agree(content, made, batch * output_len, point["batch_size"], point["output_len"])
    first = content.number("last_ttft")
    if first is not None and first.value > latency.value:
        raise content.refused("last_ttft", "is above latency", "import an unmodified file")
    _agree_rounded(content, "overall_throughput", batch * (input_len + output_len), latency.value, latency)
    if first is None:
        _agree_rounded(content, "output_throughput", batch * output_len, latency.value, latency)
    else:
        _agree_rounded(content, "input_throughput", batch * input_len, first.value, first)
        if first.value < latency.value:
            rest = latency.value - first.value
            _agree_rounded(content, "output_throughput", batch * output_len, rest, latency, first)
    return [
        ImportedResult(
            phase="generate",
            timed_by="sglang bench_one_batch_server",
            system=SYSTEM,
            point={**point, "first_token": by_rule("first_token_of_prompt", "prefill")},
            figures=stated(latency_s=latency, ttft_s=first),
        )
    ]


def _agree_rounded(content: Content, key: str, tokens: int, seconds: float, *sources: Known) -> None:
    """Tokens/s to two decimals are tokens over seconds to four."""
    rate = content.number(key)
    room = ROUNDING + HALF_A_DECIMAL * len(sources) / seconds
    agree(content, rate, tokens / seconds, *sources, room=room)
