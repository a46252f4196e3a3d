"""How values move between chips inside ``shard_map``, and matrix products in a plan's number formats.

Every function takes mesh axes by name, slowest first; no axes means that there is nothing to move.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from engines.transformer.formats import quantise
from engines.transformer.plan import Axes, Plan


def gather(x: Array, axes: Axes, dim: int) -> Array:
    """[…, N.axes, …] → […, N, …]."""
    if not axes:
        return x
    return as_bytes(x, lambda sent: lax.all_gather(sent, axes, axis=dim, tiled=True))


def as_bytes(x: Array, send: Callable[[Array], Array]) -> Array:
    """``send(x)``, float8 as plain bytes: a device that does not compute in it would widen it to be sent."""
    if x.dtype.itemsize > 1 or not jnp.issubdtype(x.dtype, jnp.floating):
        return send(x)
    arrived: Array = lax.bitcast_convert_type(send(lax.bitcast_convert_type(x, jnp.uint8)), x.dtype)
    return arrived


def scatter(x: Array, axes: Axes, dim: int) -> Array:
    """[…, N, …] {unreduced over axes} → […, N.axes, …].

    Shards stand along a first dimension of their own: of shards within a tile of its memory a TPU makes an all-reduce
    and a slice, which sends twice as much. The barrier keeps that shape from reaching back into the weights of the
    product that made x, which the TPU would then copy into it in every layer.
    """
    if not axes:
        return x
    shards = lax.psum(1, axes)
    x = lax.optimization_barrier(x)
    x = jnp.moveaxis(x.reshape(*x.shape[:dim], shards, -1, *x.shape[dim + 1 :]), dim, 0)
    summed: Array = lax.psum_scatter(x, axes, scatter_dimension=0, tiled=False)
    return summed


def total(x: Array, axes: Axes) -> Array:
    """{unreduced over axes} → the sum, on every chip."""
    return lax.psum(x, axes) if axes else x


def place(axes: Axes) -> Any:
    """This chip's number along ``axes``; 0 without axes."""
    return lax.axis_index(axes) if axes else 0


def own(x: Array, axes: Axes, dim: int, shards: int) -> Array:
    """[…, N, …] on every chip → this chip's […, N.axes, …]."""
    size = x.shape[dim] // shards
    return lax.dynamic_slice_in_dim(x, place(axes) * size, size, dim) if axes else x


def pin(plan: Plan, x: Array, *dims: str) -> Array:
    """Annotate whole x with how it is to be split: for each dimension the name of the plan's axes, or "".

    x itself where the plan moves values by hand.
    """
    if plan.annotation is None:
        return x
    cut, mesh = plan.annotation
    spec = P(*((getattr(cut, name) or None) if name else None for name in dims))
    pinned: Array = lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
    return pinned


def product(plan: Plan, equation: str, x: Array, w: Array, out_dtype: Any = None) -> Array:
    """einsum over the last dimension of x with float32 sums; the scale of quantised weights is the caller's.

    Weights are converted to x's format on the way. With ``act_dtype=int8`` x goes to theirs instead, each token with a
    scale of its own over the rows that this chip has, and sums are int32: what is then added up is wide again, so a
    token's scales need not agree between chips.
    """
    if plan.act_dtype == "int8":
        narrow, scale = quantise(x, "int8")
        counts = jnp.einsum(equation, narrow, w, preferred_element_type=jnp.int32)
        return (counts.astype(jnp.float32) * scale).astype(out_dtype or x.dtype)
    exact = plan.act_dtype == "float32"
    result = jnp.einsum(
        equation,
        x,
        w.astype(x.dtype),
        precision=lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )
    return result.astype(out_dtype or x.dtype)
