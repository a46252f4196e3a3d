"""Number formats: their names and sizes."""

from typing import Final

BYTES_PER_ELEMENT: Final[dict[str, float]] = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "float16": 2.0,
    "float8_e4m3": 1.0,
    "int8": 1.0,
    "int4": 0.5,
    "mxfp4": 0.5 + 1 / 32,
}
"""dtype name → bytes an element (int4 is packed, two to a byte; mxfp4 has its share of its block's scale)."""

MX_BLOCK: Final = 32
"""Inputs of a matrix that share an 8-bit power of two in mxfp4 (OCP Microscaling Formats, version 1.0, section 6.3)."""

WEIGHTS_ALONE: Final = ("mxfp4",)
"""Formats of a layer's matrices and of nothing else."""

ACTIVATION_DTYPES: Final = ("float32", "bfloat16", "float16")
"""The formats in which an activation may be computed without a scale."""

LARGEST: Final[dict[str, float]] = {"int8": 127.0, "int4": 7.0, "float8_e4m3": 448.0}
"""Formats that are stored with a scale → their largest value, to which the scale maps max|v|."""

INTEGERS: Final = ("int8", "int4")
"""Formats whose weights may be stored in groups, each with a scale and a zero point of its own (AWQ, GPTQ)."""

GROUP_SCALE_BYTES: Final = 2.0
"""A group's scale has 16 bits, here as in the files of AWQ and GPTQ; its zero point is in the weights' own format."""


def stream_dtype(act_dtype: str) -> str:
    """The format of activations between matmuls: the residual stream, norms, attention and collectives.

    Activations of 8 bits exist in matmuls alone; everything else is in bfloat16 then.
    """
    return act_dtype if act_dtype in ACTIVATION_DTYPES else "bfloat16"


def weight_bytes(dtype: str, group_size: int | None = None) -> float:
    """Bytes a weight: with groups, also its share of the group's scale and zero point (int4 in groups of 128: 0.52).

    A scale for each output channel is not counted: it is one number to thousands of weights.
    """
    element = BYTES_PER_ELEMENT[dtype]
    return element if group_size is None else element + (GROUP_SCALE_BYTES + element) / group_size
