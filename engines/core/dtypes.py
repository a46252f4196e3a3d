"""Number formats: their names and sizes."""

from typing import Final

BYTES_PER_ELEMENT: Final[dict[str, float]] = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "float16": 2.0,
    "float8_e4m3": 1.0,
    "int8": 1.0,
    "int4": 0.5,
}
"""dtype name → bytes an element (int4 is packed, two to a byte)."""

ACTIVATION_DTYPES: Final = ("float32", "bfloat16", "float16")
"""The formats in which an activation may be computed without a scale."""

LARGEST: Final[dict[str, float]] = {"int8": 127.0, "int4": 7.0, "float8_e4m3": 448.0}
"""Formats that are stored with a scale → their largest value, to which the scale maps max|v|."""
