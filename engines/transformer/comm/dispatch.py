"""Tokens to the chips of their experts and back: all-to-alls over the mesh axes that split experts.

Each chip has rows, sorted by the chip and the expert that they are for, and tells all others how many it has for each.
Any number of them may be for one chip. On a TPU a ragged all-to-all sends the rows that there are, in as many turns as
the chip with the most arrivals needs; elsewhere each pair of chips exchanges as many as there may be, at once.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collectives import axis_index
from engines.transformer.partition.axes import Axes


def arrivals(sizes: Array, axes: Axes) -> Array:
    """A chip's rows for each expert, ``sizes`` → [from, to, experts of a chip], the same on all chips of ``axes``."""
    counts = lax.all_gather(sizes, axes)
    between: Array = counts.reshape(len(counts), len(counts), -1)
    return between


@dataclass(frozen=True, slots=True)
class RaggedExchange:
    """Rows that arrive on a chip, numbered by the chip they come from and by expert: ``room`` of them in every turn.

    ``counts`` are :func:`arrivals`; at ``most`` so many rows can arrive on a chip.
    """

    counts: Array
    axes: Axes
    room: int
    most: int

    @property
    def turns(self) -> Array | None:
        """How many turns there are, the same on all chips of the axes; None if surely one."""
        if self.room >= self.most:
            return None
        return jnp.maximum(1, -(-self.counts.sum((0, 2)).max() // self.room))

    def send(self, rows: Array, turn: Array) -> Array:
        """``rows`` [n, width] in order of the experts that they are for → those that arrive: [room, width]."""
        me, part = axis_index(self.axes), self._part(turn)
        room = jnp.zeros((self.room, rows.shape[1]), rows.dtype)
        arrived: Array = lax.ragged_all_to_all(
            rows, room, part.held[me], part.sizes[me], part.arrived[me], part.sizes[:, me], axis_name=self.axes
        )
        return arrived

    def experts(self, turn: Array) -> Array:
        """[room] the expert, counted on this chip, of each row; the number of experts where none is."""
        mine = self.counts[:, axis_index(self.axes)]
        number = turn * self.room + jnp.arange(self.room, dtype=jnp.int32)
        segment = (number[:, None] >= jnp.cumsum(mine.reshape(-1))).sum(1, dtype=jnp.int32)
        return jnp.where(segment < mine.size, segment % mine.shape[1], mine.shape[1])

    def send_back(self, made: Array, turn: Array, back: Array) -> Array:
        """What was ``made`` of the rows that arrived → ``back`` [n, width], in the places of those that were sent."""
        me, part = axis_index(self.axes), self._part(turn)
        home: Array = lax.ragged_all_to_all(
            made, back, part.arrived[:, me], part.sizes[:, me], part.held[:, me], part.sizes[me], axis_name=self.axes
        )
        return home

    def _part(self, turn: Array) -> "_Part":
        between = self.counts.sum(-1)
        before = jnp.cumsum(between, axis=0) - between
        first = turn * self.room
        start, stop = (jnp.clip(each, first, first + self.room) for each in (before, before + between))
        sizes = stop - start
        held = jnp.cumsum(between, axis=1) - between + start - before
        return _Part(sizes, jnp.where(sizes > 0, held, 0), jnp.where(sizes > 0, start - first, 0))


class _Part(NamedTuple):
    """What a turn exchanges, each [from, to]: rows, the place of the first where it is held, and where it arrives."""

    sizes: Array
    held: Array
    arrived: Array


@dataclass(frozen=True, slots=True)
class PaddedExchange:
    """The same in one turn, ``slots`` rows from each chip to each other: the most that there may be."""

    counts: Array
    axes: Axes
    slots: int

    @property
    def turns(self) -> None:
        """One."""
        return None

    def send(self, rows: Array, _turn: Array) -> Array:
        """``rows`` [n, width] in order of the experts that they are for → those that arrive: [chips · slots, width]."""
        outwards = self._outwards()
        places = _starts(outwards)[:, None] + jnp.arange(self.slots, dtype=jnp.int32)
        blocks = rows[jnp.minimum(places, len(rows) - 1)]
        arrived: Array = lax.all_to_all(blocks, self.axes, 0, 0, tiled=True)
        return arrived.reshape(-1, rows.shape[1])

    def experts(self, _turn: Array) -> Array:
        """[chips · slots] the expert, counted on this chip, of each row; the number of experts where none is."""
        of_each = jnp.cumsum(self.counts[:, axis_index(self.axes)], axis=1)
        places = jnp.arange(self.slots, dtype=jnp.int32)
        return (places[None, :, None] >= of_each[:, None, :]).sum(-1, dtype=jnp.int32).reshape(-1)

    def send_back(self, made: Array, _turn: Array, back: Array) -> Array:
        """What was ``made`` of the rows that arrived → [n, width], in the places of the rows that were sent."""
        outwards, count = self._outwards(), len(back)
        blocks = made.reshape(len(outwards), self.slots, -1)
        arrived: Array = lax.all_to_all(blocks, self.axes, 0, 0, tiled=True).reshape(-1, made.shape[1])
        numbers, ends = jnp.arange(count, dtype=jnp.int32), jnp.cumsum(outwards)
        chip = jnp.minimum((numbers[:, None] >= ends).sum(1, dtype=jnp.int32), len(outwards) - 1)
        places = chip * self.slots + jnp.minimum(numbers - _starts(outwards)[chip], self.slots - 1)
        return arrived[places]

    def _outwards(self) -> Array:
        """[to] rows of this chip for each other."""
        mine: Array = self.counts[axis_index(self.axes)].sum(-1)
        return mine


Exchange = RaggedExchange | PaddedExchange


def _starts(sizes: Array) -> Array:
    return jnp.cumsum(sizes) - sizes
