"""The number formats of a plan, quantization to those that need a scale, and the matmul that knows them.

A value v is stored as v / scale, rounded, with scale = max|v| / (the format's largest value) over the values that
share it: an output channel of a matrix, a token of a matmul's input, a token's head in the cache. Nothing is clipped,
and the error of an integer format is at most half a scale.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import jax.numpy as jnp
from jax import Array, lax

from engines.core import dtypes
from engines.core.dtypes import ACTIVATION_DTYPES, LARGEST
from engines.transformer.params.grouped import Grouped, Weights
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan

JAX_NAMES: Final = {"float8_e4m3": "float8_e4m3fn", "mxfp4": "float4_e2m1fn"}
"""Formats that have another name in JAX: the float8_e4m3 of accelerators has no infinity and reaches 448."""

MX_SCALE: Final = "float8_e8m0fnu"
"""The 8-bit power of two of a block of mxfp4."""

FOUR_BITS: Final = ("int4", "float4_e2m1fn")
"""Formats in JAX of which a device keeps two values in a byte."""

MIN_MAGNITUDE: Final = 1e-30
"""Values that are all below it become zeros: the inverse of their scale would overflow."""


def stream_dtype(plan: Plan) -> str:
    """The dtype of activations between matmuls: the residual stream, norms, attention and collectives.

    With ``act_dtype`` int8 or float8_e4m3 only matmuls are in 8 bits, and everything else is in bfloat16.
    """
    return dtypes.stream_dtype(plan.act_dtype)


def float_dtype(plan: Plan) -> str:
    """The dtype of weights that are never quantized: ``weight_dtype`` if it has no scale, else that of activations."""
    return plan.weight_dtype if plan.weight_dtype in ACTIVATION_DTYPES else stream_dtype(plan)


def is_quantized(plan: Plan) -> bool:
    """Whether weights, activations or the cache are in a format that needs a scale."""
    return not LARGEST.keys().isdisjoint((plan.weight_dtype, plan.head_format, plan.act_dtype, plan.kv_dtype))


def stored_dtype(name: str) -> Any:
    """The JAX dtype of the format ``name``."""
    return jnp.dtype(JAX_NAMES.get(name, name))


def stored_bytes(shape: Sequence[int], dtype: Any) -> float:
    """Bytes of an array on a device, where two int4 values share a byte."""
    name = jnp.dtype(dtype).name
    element = 0.5 if name in FOUR_BITS else float(jnp.dtype(dtype).itemsize)
    return math.prod(shape) * element


def quantize(x: Array, name: str, axes: Axes = ()) -> tuple[Array, Array]:
    """x: […, N.axes] → (in the format ``name``, float32 scale […, 1]): one scale per last-dimension vector."""
    wide = x.astype(jnp.float32)
    top = jnp.abs(wide).max(axis=-1, keepdims=True)
    top = lax.pmax(top, axes) if axes else top
    scale = jnp.where(top > MIN_MAGNITUDE, top / LARGEST[name], 1)
    narrow = wide * (1 / scale)
    if jnp.issubdtype(stored_dtype(name), jnp.integer):
        narrow = jnp.round(narrow)
    return narrow.astype(stored_dtype(name)), scale


def quantize_tokens(plan: Plan, x: Array, axes: Axes) -> tuple[Array, Array | None]:
    """x: […, N.axes] as matmuls read it: (x, None), or with ``act_dtype=int8`` (int8 values, the scale of each token).

    A token has the same scale on all chips of ``axes``, so that it can be gathered over them as int8.
    """
    return quantize(x, "int8", axes) if plan.act_dtype == "int8" else (x, None)


def dequantize(x: Array, scale: Array | None) -> Array:
    """A float32 matmul result of quantized tokens times their scale; apply before summing over chips."""
    return x if scale is None else x * scale


def einsum(plan: Plan, equation: str, x: Array, w: Weights, out_dtype: Any = None) -> Array:
    """einsum that accumulates in float32, or in int32 where x and w are int8; the caller applies channels' scales.

    With ``act_dtype=float8_e4m3`` the rows of x are quantized here, after the collective that brought them in 16 bits,
    and multiplied in 8 with a matrix of that format. Other quantized weights are converted to x's dtype first, those in
    groups with their scales. Returns ``out_dtype``, by default x's (float32 for int8).
    """
    precision = lax.Precision.HIGHEST if plan.act_dtype == "float32" else lax.Precision.DEFAULT
    if isinstance(w, Grouped):
        return w.multiplied(x, precision).astype(out_dtype or x.dtype)
    if plan.act_dtype == "float8_e4m3" and w.dtype == stored_dtype(plan.act_dtype):
        narrow, scale = quantize(x, plan.act_dtype)
        product = jnp.einsum(equation, narrow, w, preferred_element_type=jnp.float32)
        return dequantize(product, scale).astype(out_dtype or x.dtype)
    if x.dtype == jnp.int8:
        counts = jnp.einsum(equation, x, w, preferred_element_type=jnp.int32)
        return counts.astype(out_dtype or jnp.float32)
    result = jnp.einsum(
        equation,
        x,
        w.astype(x.dtype),
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    return result.astype(out_dtype or x.dtype)
