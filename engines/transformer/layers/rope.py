"""Rotary position embeddings, RoPE (Su et al. 2021)."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from engines.core.model import Model


class RopeAngles(NamedTuple):
    """Cosines and signed sines of every position, the same in every layer: [..., time, 1, rotated dim]."""

    cos: Array
    sin: Array


def rope_angles(model: Model, positions: Any) -> RopeAngles | None:
    """The angles of ``positions`` [..., time]; None where the model has no rotary embeddings.

    The angle of pair i at position p is p times the i-th of the model's rotary frequencies.
    """
    if model.position != "rotary":
        return None
    rotated_dim, frequency = model.rotated_dim, jnp.asarray(model.rotary_frequencies, jnp.float32)
    angle = (positions.astype(jnp.float32)[..., None] * frequency)[..., None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    if model.rotary_interleaved:
        return RopeAngles(jnp.repeat(cos, 2, -1), jnp.stack([-sin, sin], -1).reshape(*sin.shape[:-1], rotated_dim))
    return RopeAngles(jnp.concatenate([cos, cos], -1), jnp.concatenate([-sin, sin], -1))


def rotate(model: Model, x: Array, angles: RopeAngles | None) -> Array:
    """x: [batch, time, heads, dim] → the same, its first dimensions rotated; x itself without angles.

    Pairs are (i, i + half), or (2i, 2i + 1) where interleaved.
    """
    if angles is None:
        return x
    rotated_dim = angles.cos.shape[-1]
    head = x[..., :rotated_dim]
    if model.rotary_interleaved:
        partner = head.reshape(*head.shape[:-1], -1, 2)[..., ::-1].reshape(head.shape)
    else:
        partner = jnp.concatenate([head[..., rotated_dim // 2 :], head[..., : rotated_dim // 2]], -1)
    rotated = (head.astype(jnp.float32) * angles.cos + partner.astype(jnp.float32) * angles.sin).astype(x.dtype)
    return rotated if rotated_dim == x.shape[-1] else jnp.concatenate([rotated, x[..., rotated_dim:]], -1)
