"""Which number formats a plan keeps things in, and rounding into those that need a scale.

A value v is stored as v / scale, rounded, with scale = max|v| / (the format's largest value) over the values that
share it: an output channel of a matrix, a token of what a product reads, a token's head in the cache. Nothing is cut
off then, and an integer is off by half a scale at most.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import jax.numpy as jnp
from jax import Array, lax

from engines.core.dtypes import ACTIVATION_DTYPES, BYTES_PER_ELEMENT, LARGEST
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan

STORED: Final = {"float8_e4m3": "float8_e4m3fn"}
"""Names of formats that JAX spells otherwise: the float8_e4m3 of accelerators has no infinity and reaches 448."""

LEAST: Final = 1e-30
"""Of values that are all below it a scale would be no number that has an inverse; they become zeros."""


def stream_dtype(plan: Plan) -> str:
    """The format of activations between products: of the residual stream, norms, attention and what is sent.

    With ``act_dtype=int8`` products alone are in int8, and all else in bfloat16.
    """
    return plan.act_dtype if plan.act_dtype in ACTIVATION_DTYPES else "bfloat16"


def float_dtype(plan: Plan) -> str:
    """The format of weights that are never is_quantized: that of the others, else of the activations."""
    return plan.weight_dtype if plan.weight_dtype in ACTIVATION_DTYPES else stream_dtype(plan)


def is_quantized(plan: Plan) -> bool:
    """Whether weights, activations or cache are in a format that needs a scale."""
    return not LARGEST.keys().isdisjoint((plan.weight_dtype, plan.act_dtype, plan.kv_dtype))


def stored_dtype(name: str) -> Any:
    """The dtype of arrays in the format ``name``."""
    return jnp.dtype(STORED.get(name, name))


def stored_bytes(shape: Sequence[int], dtype: Any) -> float:
    """Bytes of an array on a device: two int4 share a byte there, whatever their numpy dtype says."""
    name = jnp.dtype(dtype).name
    element: float = BYTES_PER_ELEMENT.get(name, jnp.dtype(dtype).itemsize)
    return math.prod(shape) * element


def quantize(x: Array, name: str, axes: Axes = ()) -> tuple[Array, Array]:
    """x: […, N.axes] → (in the format ``name``, float32 scale […, 1]): one scale for each last dimension."""
    wide = x.astype(jnp.float32)
    top = jnp.abs(wide).max(axis=-1, keepdims=True)
    top = lax.pmax(top, axes) if axes else top
    scale = jnp.where(top > LEAST, top / LARGEST[name], 1)
    narrow = wide * (1 / scale)
    if jnp.issubdtype(stored_dtype(name), jnp.integer):
        narrow = jnp.round(narrow)
    return narrow.astype(stored_dtype(name)), scale


def quantize_tokens(plan: Plan, x: Array, axes: Axes) -> tuple[Array, Array | None]:
    """x: […, N.axes] as products read it: itself, or with ``act_dtype=int8`` rounded, and then the scale of each token.

    A token has one scale on all chips of ``axes``, so that it can be gathered over them as int8.
    """
    return quantize(x, "int8", axes) if plan.act_dtype == "int8" else (x, None)


def dequantize(x: Array, scale: Array | None) -> Array:
    """A float32 product of quantized tokens, times their scale: before it is summed over other chips."""
    return x if scale is None else x * scale


def product(plan: Plan, equation: str, x: Array, w: Array, out_dtype: Any = None) -> Array:
    """einsum with float32 sums, or of int8 and int8 with int32 sums; scales of either side are the caller's.

    Other quantized weights are converted to x's format on the way.
    """
    if x.dtype == jnp.int8:
        counts = jnp.einsum(equation, x, w, preferred_element_type=jnp.int32)
        return counts.astype(out_dtype or jnp.float32)
    exact = plan.act_dtype == "float32"
    result = jnp.einsum(
        equation,
        x,
        w.astype(x.dtype),
        precision=lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )
    return result.astype(out_dtype or x.dtype)
