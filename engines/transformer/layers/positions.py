"""Positions of the new tokens in their sequences: where the cache stores them and which keys they see."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array, lax

from engines.core.dtypes import BYTES_PER_ELEMENT
from engines.core.layer_kind import LayerKind
from engines.transformer.layers.kv_cache import (
    Cache,
    Cached,
    behind,
    held_positions,
    keys_and_values,
    quantized_kv,
    read,
    window_of,
    write_parts,
    write_rolled,
)
from engines.transformer.layers.mask import Causal, Mask
from engines.transformer.layers.rolled_mask import Rolled
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
    mask: Mask
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

    def store(
        self, plan: Plan, cache: Cache, k: Array, v: Array, *, kind: LayerKind, layer: Any, limit: int
    ) -> CacheView:
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

    def store(
        self, plan: Plan, cache: Cache, k: Array, v: Array, *, kind: LayerKind, layer: Any, limit: int
    ) -> CacheView:
        """See :class:`Positions`."""
        prefix = plan.prefill.prefix
        window, length = window_of(plan, kind), held_positions(plan, kind)
        mask = Causal(self.start - prefix if prefix else self.start, window=window)
        parts = quantized_kv(plan, k, v)
        rolls = length < plan.cache_len - prefix
        before = cache
        if rolls:
            cache = write_rolled(cache, parts, layer, mask.position, length)
        else:
            cache = write_parts(cache, parts, layer, mask.position)
        new = keys_and_values(parts)
        # A whole prompt attends to itself, not to the cache: reading it here would give the cache a layout that decode
        # copies.
        if mask.is_whole_prompt and limit == k.shape[1]:
            return CacheView(cache, *new, mask)
        limit = min(limit, length)
        slots = k.shape[2] if folds_slots(plan) else 1
        if rolls and k.shape[1] > 1:
            # The first of several tokens see positions in whose slots the last ones now are.
            keys, values = (
                behind(read(before, name, layer, limit), each, slots) for name, each in zip("kv", new, strict=True)
            )
            return CacheView(cache, keys, values, Rolled(mask, length, limit, 0), slots)
        alone = k.shape[1] == 1 and slots == 1 and not prefix
        apart = plan.unrolled and alone and reads_before(plan, limit * new[0].values.nbytes)
        source, seen = before if apart else cache, Rolled(mask, length, limit, 1) if rolls else mask
        view = CacheView(cache, read(source, "k", layer, limit), read(source, "v", layer, limit), seen, slots)
        return view._replace(new=new) if apart else view


def reads_before(plan: Plan, key_bytes: int) -> bool:
    """Whether one new token attends to a layer's own cache as it was before the token, which a TPU fetches early.

    ``key_bytes`` are a chip's. It takes a few operations more, which is worthwhile where many bytes are read and
    fetching the weights, which are more, leaves the memory no time afterwards.
    """
    widths = [width for parts in (input_parts, output_parts) for each in parts(plan).values() for _, width in each]
    weights = plan.model.d_model * sum(widths) * BYTES_PER_ELEMENT[plan.weight_dtype]
    return APART_BYTES <= key_bytes <= weights / 2
