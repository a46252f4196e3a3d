"""Rounding into number formats that need a scale.

A value v is stored as v / scale, rounded, with scale = max|v| / (the format's largest value) over the values that
share it: an output channel of a matrix, a token of what a product reads, a token's head in the cache. Nothing is cut
off then, and an integer is off by half a scale at most.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import jax.numpy as jnp
from jax import Array

from engines.dtypes import BYTES_PER_ELEMENT, LARGEST

STORED: Final = {"float8_e4m3": "float8_e4m3fn"}
"""Names of formats that JAX spells otherwise: the float8_e4m3 of accelerators has no infinity and reaches 448."""


def stored_dtype(name: str) -> Any:
    """The dtype of arrays in the format ``name``."""
    return jnp.dtype(STORED.get(name, name))


def stored_bytes(shape: Sequence[int], dtype: Any) -> float:
    """Bytes of an array on a device: two int4 share a byte there, whatever their numpy dtype says."""
    name = jnp.dtype(dtype).name
    element: float = BYTES_PER_ELEMENT.get(name, jnp.dtype(dtype).itemsize)
    return math.prod(shape) * element


def quantise(x: Array, name: str) -> tuple[Array, Array]:
    """x: […, N] → (in the format ``name`` […, N], float32 scale […, 1]), one scale for each last dimension."""
    wide = x.astype(jnp.float32)
    top = jnp.abs(wide).max(axis=-1, keepdims=True)
    scale = jnp.where(top > 0, top / LARGEST[name], 1)
    narrow = wide / scale
    if jnp.issubdtype(stored_dtype(name), jnp.integer):
        narrow = jnp.round(narrow)
    return narrow.astype(stored_dtype(name)), scale
