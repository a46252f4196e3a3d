"""Arguments of a function as text: ``bf16[2048,4096]@data,-`` is a shape, and the mesh axes that split it."""

import re
from dataclasses import dataclass
from typing import Any, Final

from engines.core.errors import InvalidRequest

KEY: Final = "arguments"
SHAPE: Final = re.compile(r"^([a-z][a-z0-9_]*)\[([\d,\s]*)\](?:@(.*))?$")
SHORT: Final = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "pred": "bool", "bool": "bool",
    "s64": "int64", "s32": "int32", "s16": "int16", "s8": "int8", "s4": "int4",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8", "i4": "int4",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8", "u4": "uint4",
    "f8e4m3fn": "float8_e4m3fn", "f8e5m2": "float8_e5m2",
}  # fmt: skip
"""Dtypes as HLO writes them → as JAX does, whose own names are taken too."""
WHOLE: Final = "-"
"""A dimension that no axis splits."""
EXAMPLE: Final = "write it like bf16[2048,4096] or bf16[2048,4096]@data,-"


@dataclass(frozen=True, slots=True)
class Shape:
    """An array's dtype and dimensions, and for each the axes that split it; None leaves that to the compiler."""

    dtype: str
    dims: tuple[int, ...]
    split: tuple[tuple[str, ...], ...] | None = None

    def abstract(self) -> Any:
        """A :class:`jax.ShapeDtypeStruct`.

        Raises:
            InvalidRequest: JAX has no such dtype.
        """
        import jax
        import jax.numpy as jnp

        try:
            return jax.ShapeDtypeStruct(self.dims, jnp.dtype(self.dtype))
        except TypeError:
            raise InvalidRequest(KEY, self.dtype, "is no dtype of JAX", EXAMPLE) from None

    def spec(self) -> Any:
        """A :class:`jax.sharding.PartitionSpec`, or None."""
        from jax.sharding import PartitionSpec

        if self.split is None:
            return None
        return PartitionSpec(*((axes if len(axes) > 1 else axes[0]) if axes else None for axes in self.split))


def shape_of(text: str) -> Shape:
    """The shape of a text; axes of one dimension are joined by ``+``.

    Raises:
        InvalidRequest: it has another form.
    """
    found = SHAPE.match(text.strip())
    if found is None:
        raise InvalidRequest(KEY, text, "is not a shape", EXAMPLE)
    dtype = SHORT.get(found[1], found[1])
    dims = tuple(int(size) for size in found[2].split(",") if size.strip())
    if found[3] is None:
        return Shape(dtype, dims)
    parts = [part.strip() for part in found[3].split(",")] if found[3].strip() else []
    split = tuple(tuple(axis for axis in part.split("+") if axis and axis != WHOLE) for part in parts)
    if len(split) > len(dims):
        raise InvalidRequest(KEY, text, f"splits {len(split)} dimensions of {len(dims)}", EXAMPLE)
    return Shape(dtype, dims, split)
