"""The arrays of an instruction's result: element types, dimensions, memory spaces."""

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

ELEMENT_BITS: Final[dict[str, int]] = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32,
    "s64": 64, "u64": 64, "f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128, "token": 0, "opaque": 0,
    "f8e5m2": 8, "f8e4m3": 8, "f8e4m3fn": 8, "f8e4m3b11fnuz": 8, "f8e5m2fnuz": 8, "f8e4m3fnuz": 8, "f8e3m4": 8,
    "f8e8m0fnu": 8, "f4e2m1fn": 4,
}  # fmt: skip
"""Bits of one element; a pred takes one byte in memory."""

_ARRAY: Final = re.compile(r"(\w+)\[([^\]]*)\](?:\{([^}]*)\})?")
_SPACE: Final = re.compile(r"S\((\d+)\)")


@dataclass(frozen=True, slots=True)
class Shape:
    """One array: element type, dimensions, the memory space of its layout (0 is HBM), and its bytes without padding."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0
    bytes: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bytes", ELEMENT_BITS[self.dtype] / 8 * math.prod(self.dims))


@lru_cache(maxsize=50_000)
def shapes_of(text: str) -> tuple[Shape, ...]:
    """The arrays of a shape or of a tuple of shapes.

    Raises:
        ValueError: an element type is not known.
    """
    found = []
    for dtype, dims, layout in _ARRAY.findall(text):
        space = _SPACE.search(layout)
        sizes = tuple(int(each.lstrip("<=")) for each in dims.split(",") if each)
        if dtype not in ELEMENT_BITS:
            raise ValueError(f"element type {dtype}")
        found.append(Shape(dtype, sizes, int(space[1]) if space else 0))
    return tuple(found)
