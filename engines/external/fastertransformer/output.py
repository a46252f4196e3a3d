"""Reads the time from the output of ``multi_gpu_gpt_example``."""

import re
from typing import Final

from engines.core.point import Point
from engines.host.program import ProgramFailed, output_tail

KEYS: Final = (
    "request_batch_size",
    "beam_width",
    "head_num",
    "size_per_head",
    "total_output_len",
    "decoder_layers",
    "vocab_size",
)
LINE: Final = re.compile(
    r"\[INFO\] " + " ".join(rf"{key} (?P<{key}>\d+)" for key in KEYS) + r" FT-CPP-decoding-beamsearch-time "
    r"(?P<ms>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?) ms"
)


def read_latency_s(output: str, point: Point) -> float:
    """Seconds of prefill and decode of the slowest rank, since the batch ends when all ranks do.

    Raises:
        ProgramFailed: there is no ``[INFO]`` line, its sizes are not the point's, or its time is 0.
    """
    found = list(LINE.finditer(output))
    if not found:
        raise ProgramFailed(f"multi_gpu_gpt_example printed no [INFO] line with its time{output_tail(output)}")
    model = point.model
    expected = {
        "request_batch_size": point.batch_size,
        "beam_width": 1,
        "head_num": model.num_heads,
        "size_per_head": model.head_dim,
        "total_output_len": point.input_len + point.output_len,
        "decoder_layers": model.num_layers,
        "vocab_size": model.vocab_size,
    }
    for line in found:
        for key, value in expected.items():
            if int(line[key]) != value:
                raise ProgramFailed(f"multi_gpu_gpt_example ran {key}={line[key]} instead of {key}={value}")
    latency_s = max(float(line["ms"]) for line in found) / 1e3
    if latency_s <= 0:
        raise ProgramFailed(f"multi_gpu_gpt_example printed a time of {latency_s:g} s")
    return latency_s
