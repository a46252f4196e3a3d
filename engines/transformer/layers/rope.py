"""Rotary positions (Su et al. 2021)."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from engines.core.model import Model


class RopeAngles(NamedTuple):
    """Cosines and signed sines of every position, the same in every layer: [..., time, 1, rotated dim]."""

    cos: Array
    sin: Array


def rope_angles(model: Model, positions: Any) -> RopeAngles | None:
    """The angles of ``positions`` [..., time]; None where the model has no rotary positions.

    The angle of pair i at position p is p times the i-th of the model's rotary frequencies.
    """
    if model.position != "rotary":
        return None
    turned, frequency = model.rotated_dim, jnp.asarray(model.rotary_frequencies, jnp.float32)
    angle = (positions.astype(jnp.float32)[..., None] * frequency)[..., None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    if model.rotary_interleaved:
        return RopeAngles(jnp.repeat(cos, 2, -1), jnp.stack([-sin, sin], -1).reshape(*sin.shape[:-1], turned))
    return RopeAngles(jnp.concatenate([cos, cos], -1), jnp.concatenate([-sin, sin], -1))


def rotate(model: Model, x: Array, angles: RopeAngles | None) -> Array:
    """x: [batch, time, heads, dim] → the same, its first dimensions turned; x itself without angles.

    Pairs are (i, i + half), or (2i, 2i + 1) where interleaved.
    """
    if angles is None:
        return x
    turned = angles.cos.shape[-1]
    head = x[..., :turned]
    if model.rotary_interleaved:
        partner = head.reshape(*head.shape[:-1], -1, 2)[..., ::-1].reshape(head.shape)
    else:
        partner = jnp.concatenate([head[..., turned // 2 :], head[..., : turned // 2]], -1)
    done = (head.astype(jnp.float32) * angles.cos + partner.astype(jnp.float32) * angles.sin).astype(x.dtype)
    return done if turned == x.shape[-1] else jnp.concatenate([done, x[..., turned:]], -1)
