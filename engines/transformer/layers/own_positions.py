"""Positions of sequences that have come to different lengths: each goes on at a start of its own.

What a sequence wrote behind its start before is overwritten before it is read: taking tokens back is a smaller start.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import jax.numpy as jnp
from jax import Array, lax

from engines.core.layer_kind import LayerKind
from engines.transformer.comm.collectives import local_shard
from engines.transformer.layers.kv_cache import Cache, quantized_kv, read
from engines.transformer.layers.own_mask import OwnCausal
from engines.transformer.layers.positions import CacheView
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.kv_heads import folds_slots
from engines.transformer.partition.plan import Plan

MOST_UNROLLED: Final = 16
"""Sequences of a chip up to which their writes are no loop."""


@dataclass(frozen=True, slots=True)
class OwnPositions:
    """Every sequence continues at its own ``start`` [batch]."""

    start: Array

    def shard(self, plan: Plan, axes: Axes) -> "OwnPositions":
        """See :class:`engines.transformer.layers.positions.Positions`."""
        return OwnPositions(local_shard(self.start, axes, 0, plan.axes.size(axes)))

    def ids(self, time: int) -> Array:
        """[batch, time]."""
        positions: Array = self.start[:, None] + jnp.arange(time)
        return positions

    def rows(self, table: Array, time: int) -> Array:
        """table: [positions, E] → [batch, time, E]."""
        return table[self.ids(time)]

    def store(
        self, plan: Plan, cache: Cache, k: Array, v: Array, *, kind: LayerKind, layer: Any, limit: int
    ) -> CacheView:
        """Write k and v [batch, time, slots, dim] of one layer where each sequence stands.

        The cache holds every position of every layer, those of the new tokens too.
        """
        del kind
        folds = folds_slots(plan)
        parts = quantized_kv(plan, k, v)
        written = lax.platform_dependent(
            cache,
            parts,
            self.start,
            jnp.asarray(layer),
            tpu=partial(_by_sequence, folds=folds),
            default=partial(_at_once, folds=folds),
        )
        keys, values = (read(written, name, layer, limit) for name in "kv")
        slots = k.shape[2] if folds else 1
        return CacheView(written, keys, values, OwnCausal(jnp.repeat(self.start, slots)), slots)


def _by_sequence(cache: Cache, parts: dict[str, Array], start: Array, layer: Array, *, folds: bool) -> Cache:
    """One write a sequence: a TPU would run a scatter over the cache of all layers."""
    count = start.shape[0]

    def write(row: Any, held: Cache) -> Cache:
        written = dict(held)
        for name, part in parts.items():
            own = lax.dynamic_index_in_dim(part, row, keepdims=False)
            slots = own.shape[0]
            block = own[None, :, None] if folds else own[None, None]
            at = (layer, row * slots if folds else row, 0, start[row], 0)[: block.ndim]
            written[name] = lax.dynamic_update_slice(held[name], block, at)
        return written

    if count > MOST_UNROLLED:
        found: Cache = lax.fori_loop(0, count, write, cache)
        return found
    for row in range(count):
        cache = write(row, cache)
    return cache


def _at_once(cache: Cache, parts: dict[str, Array], start: Array, layer: Array, *, folds: bool) -> Cache:
    """One scatter, which other devices run in place."""
    written = dict(cache)
    for name, part in parts.items():
        slots = part.shape[1] if folds else 1
        own = part.reshape(-1, 1, *part.shape[2:]) if folds else part
        first = jnp.repeat(start, slots)
        row, at = jnp.arange(first.size)[:, None], first[:, None] + jnp.arange(part.shape[2])
        # Rows and positions are indexed together, so that they come first: [rows, time, slots, …].
        new = jnp.moveaxis(own, 2, 1)
        written[name] = cache[name].at[layer, row, :, at].set(new, mode="drop", unique_indices=True)
    return written
