"""Where in their sequences the new tokens of a pass stand, and thus where the cache takes them and what they see."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.layers.kv_cache import Cache, Cached, read, write
from engines.transformer.layers.mask import Causal
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.kv_heads import folds
from engines.transformer.partition.plan import Plan


class Readable(NamedTuple):
    """The cache with the new tokens, and what they attend to: keys and values, and which of them each token sees.

    ``slots`` is more than 1 where the cache keeps each slot of a sequence as a sequence of its own.
    """

    cache: Cache
    keys: Cached
    values: Cached
    mask: Causal
    slots: int = 1


class Positions(Protocol):
    """Positions of the new tokens of all sequences."""

    def shard(self, plan: Plan, axes: Axes) -> "Positions":
        """Those of this chip's sequences, where the batch is split over ``axes``."""
        ...

    def ids(self, time: int) -> Array:
        """[time], the same in every sequence, or [rows, time]."""
        ...

    def rows(self, table: Array, time: int) -> Array:
        """table: [positions, E] → the rows of the new tokens, [time, E] or [rows, time, E]."""
        ...

    def store(self, plan: Plan, cache: Cache, k: Array, v: Array, *, layer: Any, limit: int) -> Readable:
        """Write k and v [batch, time, slots, dim] of one layer; the first ``limit`` cached positions can be read."""
        ...


@dataclass(frozen=True, slots=True)
class Consecutive:
    """Every sequence goes on at ``start``: an int where the program is compiled for it, else traced."""

    start: Any

    def shard(self, _plan: Plan, _axes: Axes) -> "Consecutive":
        """See :class:`Positions`."""
        return self

    def ids(self, time: int) -> Array:
        """See :class:`Positions`."""
        positions: Array = self.start + jnp.arange(time)
        return positions

    def rows(self, table: Array, time: int) -> Array:
        """See :class:`Positions`."""
        rows: Array = lax.dynamic_slice_in_dim(table, self.start, time)
        return rows

    def store(self, plan: Plan, cache: Cache, k: Array, v: Array, *, layer: Any, limit: int) -> Readable:
        """See :class:`Positions`."""
        prefix = plan.prefill.prefix
        mask = Causal(self.start - prefix if prefix else self.start)
        cache, new = write(plan, cache, k, v, layer, mask.position)
        # A whole prompt attends to itself: read back, its cache would be laid out for that, and decoding copy it.
        if mask.is_whole_prompt and limit == k.shape[1]:
            return Readable(cache, *new, mask)
        slots = k.shape[2] if folds(plan) else 1
        return Readable(cache, read(cache, "k", layer, limit), read(cache, "v", layer, limit), mask, slots)
