"""Prompts of different lengths packed into rows without padding (EffectiveTransformer, ByteDance 2020): only attention
and the cache know where a sequence begins and ends.

A row holds the sequences of one shard of attention's batch, one after another: there are as many rows as shards, and
all have the width of the longest. Within a row a token attends only to its own sequence; keys and values are then
written to each sequence's part of the cache, where positions after its last token are never read.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from engines.core.layer_kind import LayerKind
from engines.transformer.comm.collectives import local_shard
from engines.transformer.layers.kv_cache import (
    Cache,
    held_positions,
    keys_and_values,
    quantized_kv,
    window_of,
    write_parts,
)
from engines.transformer.layers.mask import Causal
from engines.transformer.layers.positions import CacheView
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan

Ids = NDArray[np.int32]


class Packed(NamedTuple):
    """Positions of packed sequences. ``first``: [rows, width], where in its row each token's sequence begins.

    ``starts``: [batch], where in its row each sequence begins. Sequences fill rows in order, equally many
    a row. ``pages``: those of a cache in pages, else (). ``least``: [width], the least ``first`` of all rows.
    """

    first: Any
    starts: Any
    pages: Any = ()
    least: Any = None

    def shard(self, plan: Plan, axes: Axes) -> "Packed":
        """This chip's rows and sequences, where both are split over ``axes``."""
        shards = plan.axes.size(axes)
        first, starts = (local_shard(each, axes, 0, shards) for each in (self.first, self.starts))
        return Packed(first, starts, self.pages and self.pages.shard(plan, axes), self.least)

    def ids(self, _time: int) -> Array:
        """[rows, width]: the position of each token in its sequence."""
        where: Array = jnp.arange(self.first.shape[1]) - self.first
        return where

    def rows(self, table: Array, time: int) -> Array:
        """table: [positions, E] → [rows, width, E]."""
        return table[self.ids(time)]

    def store(
        self, plan: Plan, cache: Cache, k: Array, v: Array, *, kind: LayerKind, layer: Any, limit: int
    ) -> CacheView:
        """Write k and v [1, width, slots, dim] of a chip's row to each sequence's first ``limit`` positions, or pages.

        Of a layer with a window that is shorter, to each sequence's last positions. The returned keys and values are in
        the cache's format, but still packed in their row: [1, slots, width, dim].
        """
        parts, length = quantized_kv(plan, k, v), held_positions(plan, kind)
        if self.pages:
            at = (self.starts[self.pages.owner] + self.pages.begins)[:, None] + jnp.arange(length)
        elif length < limit:
            ends = self.starts + (self.first == self.starts[:, None]).sum(axis=1)
            last = (ends - self.starts - 1)[:, None]
            at = self.starts[:, None] + last - (last - jnp.arange(length)) % length
        else:
            at = self.starts[:, None] + jnp.arange(limit)
        apart = {name: jnp.take(each[0], at, axis=1, mode="clip").swapaxes(0, 1) for name, each in parts.items()}
        mask = Causal(0, self.first[0], window_of(plan, kind), self.least)
        return CacheView(write_parts(cache, apart, layer, 0), *keys_and_values(parts), mask)


def pack(plan: Plan, tokens: Ids, lengths: Ids, pages: Any = ()) -> tuple[Ids, Packed]:
    """tokens: [batch, time], of which ``lengths`` [batch] count → tokens [rows, width] and their positions."""
    rows = plan.axes.size(plan.axes.sequence)
    by_row = lengths.reshape(rows, -1)
    ends = by_row.cumsum(axis=1)
    width = int(ends.max())
    packed, first = np.zeros((rows, width), np.int32), np.empty((rows, width), np.int32)
    # The padding at the end of a row is a sequence of its own.
    first[:] = ends[:, -1:]
    starts = (ends - by_row).astype(np.int32)
    for number, (start, length) in enumerate(zip(starts.ravel(), lengths, strict=True)):
        row = number // by_row.shape[1]
        packed[row, start : start + length] = tokens[number, :length]
        first[row, start : start + length] = start
    return packed, Packed(first, starts.ravel(), pages, first.min(axis=0))
