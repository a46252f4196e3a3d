"""The one line of ``multi_gpu_gpt_example`` that holds its time."""

import re
from typing import Final

from engines.core.point import Point
from engines.host.program import ProgramFailed, said

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
    """Seconds of prompt and answer. Where several ranks print, the slowest: the batch is ready when all are.

    Raises:
        ProgramFailed: there is no such line, it is of another question, or its time is 0.
    """
    found = list(LINE.finditer(output))
    if not found:
        raise ProgramFailed(f"multi_gpu_gpt_example printed no [INFO] line with its time{said(output)}")
    model = point.model
    asked = {
        "request_batch_size": point.batch_size,
        "beam_width": 1,
        "head_num": model.num_heads,
        "size_per_head": model.head_dim,
        "total_output_len": point.input_len + point.output_len,
        "decoder_layers": model.num_layers,
        "vocab_size": model.vocab_size,
    }
    for line in found:
        for key, value in asked.items():
            if int(line[key]) != value:
                raise ProgramFailed(f"multi_gpu_gpt_example ran {key}={line[key]}, and {value} was asked")
    latency_s = max(float(line["ms"]) for line in found) / 1e3
    if latency_s <= 0:
        raise ProgramFailed(f"multi_gpu_gpt_example printed a time of {latency_s:g} s")
    return latency_s
