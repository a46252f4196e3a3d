"""A decode step of sequences of different lengths: each new token stands at a position of its own.

Padded, the cache has room for the longest sequence in every row, and all of it is read under a mask. In pages, the
cache has as many pages of a few positions as each sequence fills, one sequence's after another's, and attention reads
those alone (as vLLM's, Kwon et al. 2023, arXiv 2309.06180; but which page is whose is known before the program runs).
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from engines.core.layer_kind import LayerKind
from engines.transformer.comm.collectives import local_shard
from engines.transformer.layers.kv_cache import Cache, Cached, quantized_kv, read, window_of, write_each
from engines.transformer.layers.mask import Positions as Keys
from engines.transformer.layers.mask import QueryBlock, Window
from engines.transformer.layers.online_softmax import Partial, direct, nothing
from engines.transformer.layers.own_mask import OfRows
from engines.transformer.layers.per_head import PerHead
from engines.transformer.layers.positions import CacheView
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.kv_heads import folds_slots
from engines.transformer.partition.plan import Plan

PAGE: Final = 128
CPU_PAGE: Final = 16
"""Positions of a page: a tile of a TPU's memory, and what a CPU's vector unit multiplies well."""
NOBODY: Final = 1 << 30
"""First position of a page that no sequence fills: every query is before it."""


class Pages(NamedTuple):
    """Whose a page is. ``owner``, ``begins``: [pages], its sequence among those of its shard, and its first position.

    ``first``: [batch], the first page of each sequence among those of its shard. Every shard of attention's batch has
    equally many pages, and the pages of a sequence are in order.
    """

    owner: Any
    begins: Any
    first: Any

    def shard(self, plan: Plan, axes: Axes) -> "Pages":
        """This chip's, where sequences are split over ``axes``."""
        return Pages(*(local_shard(each, axes, 0, plan.axes.size(axes)) for each in self))


def pages_of(plan: Plan, lengths: NDArray[np.int32], steps: int, size: int) -> Pages:
    """The pages of ``size`` positions for prompts of ``lengths`` [batch] and ``steps`` tokens more each."""
    shards = plan.axes.size(plan.axes.sequence)
    counts = -(-(lengths.reshape(shards, -1).astype(np.int64) + steps) // size)
    room = int(counts.sum(axis=1).max())
    owner = np.full((shards, room), counts.shape[1] - 1, np.int32)
    begins = np.full((shards, room), NOBODY, np.int32)
    for shard, each in enumerate(counts):
        filled = int(each.sum())
        owner[shard, :filled] = np.repeat(np.arange(len(each)), each)
        begins[shard, :filled] = np.concatenate([np.arange(count) * size for count in each])
    first = np.asarray(counts.cumsum(axis=1) - counts, np.int32)
    return Pages(owner.ravel(), begins.ravel(), first.ravel())


class Ragged(NamedTuple):
    """Positions of one new token a sequence. ``position``: [batch]. ``pages``: those of a cache in pages, else ()."""

    position: Any
    pages: Any = ()

    def later(self, steps: Any) -> "Ragged":
        """The same, so many steps later."""
        return Ragged(self.position + steps, self.pages)

    def shard(self, plan: Plan, axes: Axes) -> "Ragged":
        """See :class:`engines.transformer.layers.positions.Positions`."""
        position = local_shard(self.position, axes, 0, plan.axes.size(axes))
        return Ragged(position, self.pages and self.pages.shard(plan, axes))

    def ids(self, _time: int) -> Array:
        """[rows, 1]."""
        here: Array = self.position[:, None]
        return here

    def rows(self, table: Array, time: int) -> Array:
        """table: [positions, E] → [rows, 1, E]."""
        return table[self.ids(time)]

    def store(
        self, plan: Plan, cache: Cache, k: Array, v: Array, *, kind: LayerKind, layer: Any, limit: int
    ) -> CacheView:
        """Write k and v [batch, 1, slots, dim], each at its sequence's position."""
        parts, window = quantized_kv(plan, k, v), window_of(plan, kind)
        if self.pages:
            assert plan.pages is not None
            size = plan.pages[1]
            cache = write_each(cache, parts, layer, self.pages.first + self.position // size, self.position % size)
            owner, begins = self.pages.owner, self.pages.begins
            mask: OfEach = OfPages(self.position[owner], window, begins[:, None], owner)
            slots, limit = 1, size
        else:
            slots = k.shape[2] if folds_slots(plan) else 1
            at = jnp.repeat(self.position, slots)
            cache = write_each(cache, parts, layer, jnp.arange(at.shape[0]), at)
            mask = OfEach(at, window)
        return CacheView(cache, read(cache, "k", layer, limit), read(cache, "v", layer, limit), mask, slots)


@dataclass(frozen=True, slots=True)
class OfEach(OfRows):
    """What the one query of each row of keys sees: keys up to its ``position`` [rows], those of its ``window``.

    Row r's key k stands at ``begins`` [rows, 1] + k.
    """

    position: Array
    window: Window | None = None
    begins: Any = 0

    def seen(self, keys: Keys, _queries: QueryBlock) -> Array:
        """[rows, 1, 1, 1, keys]: see :class:`engines.transformer.layers.mask.Mask`."""
        here, query = self.begins + keys, self.position[:, None]
        seen: Array = here <= query
        if self.window is not None:
            seen = seen & (here >= self.window.first(query))
        return seen[:, None, None, None]

    def distance(self, keys: Keys, _queries: QueryBlock) -> Array:
        """[rows, 1, 1, 1, keys]: see :class:`engines.transformer.layers.mask.Mask`."""
        apart: Array = self.begins + keys - self.position[:, None]
        return apart[:, None, None, None]


@dataclass(frozen=True, slots=True)
class OfPages(OfEach):
    """:class:`OfEach` where rows are pages, those of the sequence ``owner`` [rows] attended to together."""

    owner: Any = None

    def attend(self, plan: Plan, scaled: Array, keys: Cached, vals: Cached, heads: PerHead) -> Partial:
        """scaled: [batch, 1, slots, group, dim], keys and vals: [pages, slots, size, dim] → attention to each's pages.

        Every page is attended to by itself, and the parts of a sequence are then merged, as blocks are.
        """
        owner, batch = self.owner, scaled.shape[0]
        at, queries = jnp.arange(keys.values.shape[2])[None, :], QueryBlock(1)
        start = nothing((owner.shape[0], *scaled.shape[2:4], 1), vals.values.shape[-1])
        seen, bias = self.seen(at, queries), heads.bias(self, at, queries)
        part = direct(plan, scaled[owner], keys, vals, seen, start, bias=bias)
        tops = jax.ops.segment_max(part.tops, owner, batch, indices_are_sorted=True)
        kept = jnp.exp2(part.tops - tops[owner])
        values, sums = (
            jax.ops.segment_sum(each * kept, owner, batch, indices_are_sorted=True) for each in (part.values, part.sums)
        )
        return Partial(values, tops, sums)
