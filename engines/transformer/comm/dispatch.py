"""Tokens to the chips of their experts and back: all-to-alls over the mesh axes that split experts.

Each chip has rows, sorted by the chip and the expert that they are for, and tells all others how many it has for each.
On a TPU a ragged all-to-all sends those rows alone; elsewhere each pair of chips exchanges as many as there may be. A
chip can get every row of every other one that has one of its experts: so much room is made for what arrives.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collectives import axis_index
from engines.transformer.partition.axes import Axes


class Sent(NamedTuple):
    """What is where after :func:`send`, for :func:`send_back`.

    ``counts`` [chips, experts of one]: rows that arrived from each chip for each expert of this one; ``between``
    [from, to]: rows between any two chips.
    """

    counts: Array
    between: Array
    axes: Axes
    slots: int


def send(rows: Array, sizes: Array, axes: Axes, shards: int, slots: int) -> tuple[Array, Sent]:
    """``rows`` [n, width], sorted by expert, ``sizes`` [experts] of each → what arrived: [shards · slots, width].

    ``slots`` is the most rows that a chip has for another one. The rows of a chip arrive together, in its order.
    """
    counts = lax.all_gather(sizes, axes)
    mine = lax.dynamic_slice_in_dim(counts, axis_index(axes) * (len(sizes) // shards), len(sizes) // shards, 1)
    sent = Sent(mine, counts.reshape(shards, shards, -1).sum(-1), axes, slots)
    arrived: Array = lax.platform_dependent(rows, tpu=partial(_ragged, sent), default=partial(_padded, sent))
    return arrived, sent


def expert_of_arrived(sent: Sent) -> Array:
    """[shards · slots] the expert, counted on this chip, of each place; the number of experts where no row is."""
    places = jnp.arange(sent.slots, dtype=jnp.int32)
    of_each = jnp.cumsum(sent.counts, axis=1)
    padded = (places[None, :, None] >= of_each[:, None, :]).sum(-1, dtype=jnp.int32).reshape(-1)

    def ragged() -> Array:
        ends = jnp.cumsum(sent.counts.reshape(-1))
        every = jnp.arange(len(padded), dtype=jnp.int32)
        segment = (every[:, None] >= ends).sum(1, dtype=jnp.int32)
        count = sent.counts.shape[1]
        return jnp.where(segment < len(ends), segment % count, count)

    found: Array = lax.platform_dependent(tpu=ragged, default=lambda: padded)
    return found


def send_back(rows: Array, sent: Sent, count: int) -> Array:
    """What was made of the rows that arrived, in their places → [count, width], in the places of the rows sent."""
    back: Array = lax.platform_dependent(
        rows, tpu=partial(_ragged_back, sent, count), default=partial(_padded_back, sent, count)
    )
    return back


def _ragged(sent: Sent, rows: Array) -> Array:
    me, between = axis_index(sent.axes), sent.between
    outwards, before = between[me], jnp.cumsum(between, axis=0) - between
    room = jnp.zeros((len(between) * sent.slots, rows.shape[1]), rows.dtype)
    arrived: Array = lax.ragged_all_to_all(
        rows, room, _starts(outwards), outwards, before[me], between[:, me], axis_name=sent.axes
    )
    return arrived


def _ragged_back(sent: Sent, count: int, rows: Array) -> Array:
    me, between = axis_index(sent.axes), sent.between
    inwards, before = between[:, me], jnp.cumsum(between, axis=1) - between
    room = jnp.zeros((count, rows.shape[1]), rows.dtype)
    back: Array = lax.ragged_all_to_all(
        rows, room, _starts(inwards), inwards, before[:, me], between[me], axis_name=sent.axes
    )
    return back


def _padded(sent: Sent, rows: Array) -> Array:
    outwards = sent.between[axis_index(sent.axes)]
    places = _starts(outwards)[:, None] + jnp.arange(sent.slots, dtype=jnp.int32)
    blocks = rows[jnp.minimum(places, len(rows) - 1)]
    arrived: Array = lax.all_to_all(blocks, sent.axes, 0, 0, tiled=True)
    return arrived.reshape(-1, rows.shape[1])


def _padded_back(sent: Sent, count: int, rows: Array) -> Array:
    outwards = sent.between[axis_index(sent.axes)]
    blocks = rows.reshape(len(outwards), sent.slots, -1)
    arrived: Array = lax.all_to_all(blocks, sent.axes, 0, 0, tiled=True).reshape(-1, rows.shape[1])
    numbers, ends = jnp.arange(count, dtype=jnp.int32), jnp.cumsum(outwards)
    chip = jnp.minimum((numbers[:, None] >= ends).sum(1, dtype=jnp.int32), len(outwards) - 1)
    places = chip * sent.slots + jnp.minimum(numbers - _starts(outwards)[chip], sent.slots - 1)
    return arrived[places]


def _starts(sizes: Array) -> Array:
    return jnp.cumsum(sizes) - sizes
