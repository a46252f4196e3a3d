"""Layernorm and RMSnorm of the partitioned residual stream."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collectives import all_reduce, local_shard
from engines.transformer.params.tree import Norm
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan


def norm(plan: Plan, parameters: Norm, x: Array, axes: Axes | None = None) -> Array:
    """x: [tokens, E.axes] → the same, normalized; statistics are summed over the chips of ``axes``.

    ``axes`` defaults to those of the residual stream. Normalizing before the all-gather divides the work among the
    chips and sends only the sums, two numbers a token.
    """
    with jax.named_scope("norm"):
        return _normalized(plan, parameters, x, plan.axes.residual if axes is None else axes)


def _normalized(plan: Plan, parameters: Norm, x: Array, axes: Axes) -> Array:
    model = plan.model
    shards = plan.axes.size(axes)
    wide = x.astype(jnp.float32)
    centered = model.norm == "layernorm"
    sums = [jnp.square(wide).sum(-1), wide.sum(-1)] if centered else [jnp.square(wide).sum(-1)]
    means = all_reduce(jnp.stack(sums), axes) / model.d_model
    variance = means[0] - jnp.square(means[1]) if centered else means[0]
    wide = wide - means[1][..., None] if centered else wide
    wide = wide * lax.rsqrt(variance + model.norm_epsilon)[..., None] * local_shard(parameters.scale, axes, 0, shards)
    if parameters.bias is not None:
        wide = wide + local_shard(parameters.bias, axes, 0, shards)
    return wide.astype(x.dtype)


def head_norm(plan: Plan, scale: Array, x: Array) -> Array:
    """RMSnorm of every head, x: [batch, time, heads, dim], by one ``scale`` [dim]."""
    wide = x.astype(jnp.float32)
    wide = wide * lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + plan.model.norm_epsilon) * scale
    return wide.astype(x.dtype)
