"""Positions of a sequence split over chips: of n chips, chip i holds the positions i, i + n, i + 2n and so on.

Every chip then has as many of the keys that a query sees as any other (Brandon et al. 2023, "Striped attention",
arXiv 2311.09431), whether a prompt is read or a step decoded, and a new position is written where it stays.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engines.core.layer_kind import LayerKind
from engines.transformer.comm.collectives import axis_index
from engines.transformer.layers.kv_cache import (
    Cache,
    Cached,
    behind,
    held_positions,
    keys_and_values,
    read,
    window_of,
    write_parts,
    write_rolled,
)
from engines.transformer.layers.mask import Positions, QueryBlock, Window
from engines.transformer.partition.kv_heads import folds_slots
from engines.transformer.partition.plan import Plan


@dataclass(frozen=True, slots=True)
class Striped:
    """Query t, at ``first`` + t·``step``, sees keys up to there, those of its ``window`` where there is one.

    A chip's place j is the position ``offset`` + j·``stride``. Key j is place j, or where the cache rolls, what
    ``roll`` says. ``base`` is the place that query 0 reaches at most, an int where it is known at compile time.
    """

    first: Any
    step: int
    offset: Any
    stride: int
    base: Any = 0
    window: Window | None = None
    roll: "Roll | None" = None

    sees_some = False

    def seen(self, keys: Positions, queries: QueryBlock) -> Array:
        """See :class:`engines.transformer.layers.mask.BlockMask`."""
        place, query = self._place(keys), self._query(queries)
        at = self.offset + place * self.stride
        seen: Any = at <= query
        if self.window is not None:
            seen = seen & (at >= self.window.first(query))
        if self.roll is not None:
            seen = seen & (place >= 0)
        whole: Array = seen
        return whole

    def distance(self, keys: Positions, queries: QueryBlock) -> Array:
        """See :class:`engines.transformer.layers.mask.BlockMask`."""
        apart: Array = self.offset + self._place(keys) * self.stride - self._query(queries)
        return apart

    def padded(self, time: int) -> "Striped":
        """See :class:`engines.transformer.layers.mask.BlockMask`."""
        return self

    def key_blocks(self, queries: int, time: int, keys: int, limit: int) -> tuple[Any, Any]:
        """See :class:`engines.transformer.layers.mask.BlockMask`."""
        parts = math.ceil(time / queries)
        if self.roll is not None:
            return np.zeros(parts, np.int32), np.full(parts, math.ceil(limit / keys))
        last = np.minimum(np.arange(1, parts + 1) * queries, time) - 1
        reached = self.base + (self.stride - 1 + last * self.step) // self.stride
        ends: Any = (reached // keys + 1).clip(max=math.ceil(limit / keys))
        if self.window is None:
            return np.zeros(parts, np.int32), ends
        # Of queries at ``base``·``stride`` or later.
        least = self.window.first(self.base * self.stride + np.arange(parts) * queries * self.step)
        begins: Any = ((least - self.stride + 1) // self.stride).clip(min=0) // keys
        return begins, ends

    def _query(self, queries: QueryBlock) -> Array:
        begin = self.first if queries.start is None else self.first + queries.start * self.step
        at: Array = begin + jnp.arange(queries.count)[:, None] * self.step
        return at

    def _place(self, keys: Positions) -> Any:
        return keys if self.roll is None else self.roll.place(keys)


@dataclass(frozen=True, slots=True)
class Roll:
    """A rolling cache of ``length`` places, place j in slot j mod ``length``, of which ``newest`` was written last.

    The first ``held`` keys are its slots; behind them come the places from ``fresh`` on, in order.
    """

    newest: Any
    length: int
    held: int
    fresh: Any = 0

    def place(self, keys: Positions) -> Any:
        """The place of each key; below 0 of a slot that nothing was written to."""
        rolled = self.newest - (self.newest - keys) % self.length
        return jnp.where(keys < self.held, rolled, self.fresh + keys - self.held)


def stripes(plan: Plan) -> int:
    """Chips that share the positions of a sequence."""
    return plan.axes.size(plan.axes.positions)


def striped(plan: Plan, time: int) -> int:
    """``time`` positions, padded so that every chip has as many."""
    return -(-time // stripes(plan)) * stripes(plan)


def own_stripe(plan: Plan, x: Array, axis: int) -> Array:
    """[…, time, …] of all positions → this chip's […, time/n, …]; padded with zeros behind."""
    count, time = stripes(plan), x.shape[axis]
    more = striped(plan, time) - time
    x = jnp.pad(x, [(0, more if each == axis else 0) for each in range(x.ndim)])
    cut = x.reshape(*x.shape[:axis], -1, count, *x.shape[axis + 1 :])
    own: Array = lax.dynamic_index_in_dim(cut, axis_index(plan.axes.positions), axis + 1, keepdims=False)
    return own


def own_ids(plan: Plan, time: int) -> Array:
    """The positions of this chip, of ``time`` from 0 on: [time/n]."""
    ids: Array = axis_index(plan.axes.positions) + jnp.arange(striped(plan, time) // stripes(plan)) * stripes(plan)
    return ids


class Held(NamedTuple):
    """The cache with the new positions, and a chip's keys and values with what the new queries see of them."""

    cache: Cache
    keys: Cached
    values: Cached
    mask: Striped


def store_stripe(
    plan: Plan, cache: Cache, parts: dict[str, Array], *, kind: LayerKind, layer: Any, start: Any, limit: int
) -> Held:
    """Write ``parts`` [batch, slots, time, …] of positions from ``start`` on, of which a chip writes its own.

    Several positions begin with one of chip 0; one position is written by the chip that holds it. The first ``limit``
    positions can be read.
    """
    count, mine = stripes(plan), axis_index(plan.axes.positions)
    length, window, place = held_positions(plan, kind), window_of(plan, kind), start // count
    rolls, time = length < plan.cache_positions, parts["k"].shape[2]
    mask = Striped(start, 1, mine, count, place, window)
    held = min(striped(plan, limit) // count, length)

    def read_all(source: Cache) -> tuple[Cached, Cached]:
        return read(source, "k", layer, held), read(source, "v", layer, held)

    if time == 1:
        written = _write_one(cache, parts, layer, place % length if rolls else place, start % count == mine)
        if rolls:
            mask = replace(mask, roll=Roll((start - mine) // count, length, held))
        return Held(written, *read_all(written), mask)
    own = {name: own_stripe(plan, each, 2) for name, each in parts.items()}
    if not rolls:
        written = write_parts(cache, own, layer, place)
        return Held(written, *read_all(written), mask)
    # The first of several positions see keys in whose slots the last ones will be.
    slots = parts["k"].shape[1] if folds_slots(plan) else 1
    keys, values = (behind(each, new, slots) for each, new in zip(read_all(cache), keys_and_values(own), strict=True))
    mask = replace(mask, roll=Roll(place - 1, length, held, place))
    return Held(write_rolled(cache, own, layer, place, length), keys, values, mask)


def store_prompt(plan: Plan, cache: Cache, parts: dict[str, Array], *, kind: LayerKind, layer: Any) -> Cache:
    """Write a chip's own ``parts`` [batch, slots, time/n, …] of a whole prompt."""
    length = held_positions(plan, kind)
    if length < plan.cache_positions:
        return write_rolled(cache, parts, layer, 0, length)
    return write_parts(cache, parts, layer, 0)


def _write_one(cache: Cache, parts: dict[str, Array], layer: Any, place: Any, mine: Array) -> Cache:
    """The cache with one position written where it is ``mine``, and as it was elsewhere."""
    kept = {}
    for name, each in parts.items():
        at = (layer, 0, 0, place, 0)[: each.ndim + 1]
        rows = cache[name].shape[1:3]
        before = lax.dynamic_slice(cache[name], at, (1, *rows, *each.shape[2:]))[0]
        kept[name] = jnp.where(mine, each.reshape(before.shape), before)
    return write_parts(cache, kept, layer, place)
