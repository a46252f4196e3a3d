"""Positions of the new tokens in their sequences: where the cache stores them and which keys they see."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array, lax

from engines.core.dtypes import BYTES_PER_ELEMENT
from engines.transformer.layers.kv_cache import Cache, Cached, read, write
from engines.transformer.layers.mask import Causal
from engines.transformer.params.fusion import input_parts, output_parts
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.kv_heads import folds_slots
from engines.transformer.partition.plan import Plan

APART_BYTES: Final = 1 << 23
"""From this many bytes of a layer's keys on, a chip may read them before it writes (:func:`reads_before`)."""


class CacheView(NamedTuple):
    """The cache with the new tokens, the keys and values that they attend to, and the mask.

    ``slots`` is more than 1 where the cache folds slots into the batch. With ``new``, the key and value of the one new
    token, the others are those of the cache before it: at its position they hold anything.
    """

    cache: Cache
    keys: Cached
    values: Cached
    mask: Causal
    slots: int = 1
    new: tuple[Cached, Cached] | None = None


class Positions(Protocol):
    """Positions of the new tokens of all sequences."""

    def shard(self, plan: Plan, axes: Axes) -> "Positions":
        """Those of this chip's sequences, where the batch is split over ``axes``."""
        ...

    def ids(self, time: int) -> Array:
        """Positions as [time], the same in every sequence, or [rows, time]."""
        ...

    def rows(self, table: Array, time: int) -> Array:
        """table: [positions, E] → the rows of the new tokens, [time, E] or [rows, time, E]."""
        ...

    def store(self, plan: Plan, cache: Cache, k: Array, v: Array, *, layer: Any, limit: int) -> CacheView:
        """Write k and v [batch, time, slots, dim] of one layer; the first ``limit`` cached positions can be read."""
        ...


@dataclass(frozen=True, slots=True)
class Consecutive:
    """Every sequence continues at ``start``: an int where it is known at compile time, else traced."""

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

    def store(self, plan: Plan, cache: Cache, k: Array, v: Array, *, layer: Any, limit: int) -> CacheView:
        """See :class:`Positions`."""
        prefix = plan.prefill.prefix
        mask = Causal(self.start - prefix if prefix else self.start)
        before = cache
        cache, new = write(plan, cache, k, v, layer, mask.position)
        # A whole prompt attends to itself, not to the cache: reading it here would give the cache a layout that decode
        # copies.
        if mask.is_whole_prompt and limit == k.shape[1]:
            return CacheView(cache, *new, mask)
        slots = k.shape[2] if folds_slots(plan) else 1
        alone = k.shape[1] == 1 and slots == 1 and not prefix
        apart = plan.unrolled and alone and reads_before(plan, limit * new[0].values.nbytes)
        source = before if apart else cache
        view = CacheView(cache, read(source, "k", layer, limit), read(source, "v", layer, limit), mask, slots)
        return view._replace(new=new) if apart else view


def reads_before(plan: Plan, key_bytes: int) -> bool:
    """Whether one new token attends to a layer's own cache as it was before the token, which a TPU fetches early.

    ``key_bytes`` are a chip's. It takes a few operations more, which is worthwhile where many bytes are read and
    fetching the weights, which are more, leaves the memory no time afterwards.
    """
    widths = [width for parts in (input_parts, output_parts) for each in parts(plan).values() for _, width in each]
    weights = plan.model.d_model * sum(widths) * BYTES_PER_ELEMENT[plan.weight_dtype]
    return APART_BYTES <= key_bytes <= weights / 2
