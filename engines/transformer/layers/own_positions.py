"""Positions of sequences that have come to different lengths: each goes on at a start of its own.

What a sequence wrote behind its start before is overwritten before it is read: taking tokens back is a smaller start.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from engines.core.layer_kind import LayerKind
from engines.transformer.comm.collectives import local_shard
from engines.transformer.layers.kv_cache import Cache, quantized_kv, read
from engines.transformer.layers.own_mask import OwnCausal
from engines.transformer.layers.positions import CacheView
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.kv_heads import folds_slots
from engines.transformer.partition.plan import Plan


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

        A position that is not in the cache is not written. The cache holds every position of every layer.
        """
        del kind
        slots = k.shape[2] if folds_slots(plan) else 1
        start = jnp.repeat(self.start, slots) if slots > 1 else self.start
        at = start[:, None] + jnp.arange(k.shape[1])
        row = jnp.arange(start.size)[:, None]
        written = dict(cache)
        for name, part in quantized_kv(plan, k, v).items():
            each = part.reshape(-1, 1, *part.shape[2:]) if slots > 1 else part
            # Rows and positions are indexed together, so that they come first: [rows, time, slots, …].
            new = jnp.moveaxis(each, 2, 1)
            written[name] = cache[name].at[layer, row, :, at].set(new, mode="drop", unique_indices=True)
        keys, values = (read(written, name, layer, limit) for name in "kv")
        return CacheView(written, keys, values, OwnCausal(start), slots)
