"""Rotary position embeddings, RoPE (Su et al. 2021)."""

from typing import Any, Final, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engines.core.layer_kind import LayerKind
from engines.core.model import Model

EVERY_KEY: Final = LayerKind()
PERMUTED_TOKENS: Final = 256
"""Up to this many tokens a TPU permutes pairs by a product."""


class RopeAngles(NamedTuple):
    """Cosines and signed sines of every position, the same in every layer: [..., time, 1, rotated dim]."""

    cos: Array
    sin: Array


def rope_angles(model: Model, positions: Any, kind: LayerKind = EVERY_KEY, length: int = 0) -> RopeAngles | None:
    """The angles of ``positions`` [..., time] in a layer of that kind; None where the model has no rotary embeddings.

    The angle of pair i at position p is p times the i-th of the frequencies of a text of ``length``
    (:meth:`engines.core.model.Model.rotary`), whose scale multiplies sines and cosines.
    """
    if model.position != "rotary":
        return None
    rotary = model.rotary(kind, length)
    rotated_dim, frequency = model.rotated_dim, jnp.asarray(rotary.frequencies, jnp.float32)
    angle = (positions.astype(jnp.float32)[..., None] * frequency)[..., None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    if rotary.scale != 1:
        cos, sin = cos * rotary.scale, sin * rotary.scale
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

    def rotated(partner: Array) -> Array:
        return (head.astype(jnp.float32) * angles.cos + partner.astype(jnp.float32) * angles.sin).astype(x.dtype)

    if x.shape[0] * x.shape[1] <= PERMUTED_TOKENS:
        turned = lax.platform_dependent(
            head,
            tpu=lambda head: rotated(_permuted(model, head)),
            default=lambda head: rotated(_partner(model, head)),
        )
    else:
        turned = rotated(_partner(model, head))
    return turned if rotated_dim == x.shape[-1] else jnp.concatenate([turned, x[..., rotated_dim:]], -1)


def _partner(model: Model, head: Array) -> Array:
    """The other value of every pair."""
    if model.rotary_interleaved:
        return head.reshape(*head.shape[:-1], -1, 2)[..., ::-1].reshape(head.shape)
    half = head.shape[-1] // 2
    return jnp.concatenate([head[..., half:], head[..., :half]], -1)


def _permuted(model: Model, head: Array) -> Array:
    """:func:`_partner` as a product with a permutation, which is exact.

    Parts of a tile of 128 lanes are slices and concatenations to a TPU's compiler, each an operation of its own; a
    product takes the rotation with it.
    """
    dim = head.shape[-1]
    order = np.arange(dim) ^ 1 if model.rotary_interleaved else np.roll(np.arange(dim), dim // 2)
    swap = jnp.asarray(np.eye(dim, dtype=np.float32)[order].T, head.dtype)
    partner: Array = jnp.einsum(
        "...d,de->...e", head, swap, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    return partner
