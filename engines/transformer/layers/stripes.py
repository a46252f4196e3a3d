"""Positions of a sequence split over chips: of n chips, chip i holds the positions i, i + n, i + 2n and so on.

Every chip then has as many of the keys that a query sees as any other (Brandon et al. 2023, "Striped attention",
arXiv 2311.09431), whether a prompt is read or a step decoded, and a new position is written where it stays.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engines.transformer.comm.collectives import axis_index
from engines.transformer.layers.kv_cache import Cache, Cached, read, write_parts
from engines.transformer.layers.mask import Positions, QueryBlock
from engines.transformer.partition.plan import Plan


@dataclass(frozen=True, slots=True)
class Striped:
    """Query t, at ``first`` + t·``step``, sees all keys up to there; key j stands at ``offset`` + j·``stride``.

    ``base`` is the place among the keys that query 0 reaches at most, an int where it is known at compile time.
    """

    first: Any
    step: int
    offset: Any
    stride: int
    base: Any = 0

    def seen(self, keys: Positions, queries: QueryBlock) -> Array:
        """See :class:`engines.transformer.layers.mask.BlockMask`."""
        begin = self.first if queries.start is None else self.first + queries.start * self.step
        seen: Array = self.offset + keys * self.stride <= begin + jnp.arange(queries.count)[:, None] * self.step
        return seen

    def padded(self, time: int) -> "Striped":
        """See :class:`engines.transformer.layers.mask.BlockMask`."""
        return self

    def key_blocks(self, queries: int, time: int, keys: int, limit: int) -> tuple[Any, Any]:
        """See :class:`engines.transformer.layers.mask.BlockMask`."""
        parts = math.ceil(time / queries)
        last = np.minimum(np.arange(1, parts + 1) * queries, time) - 1
        reached = self.base + (self.stride - 1 + last * self.step) // self.stride
        ends: Any = (reached // keys + 1).clip(max=math.ceil(limit / keys))
        return np.zeros(parts, np.int32), ends


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


def store_stripe(plan: Plan, cache: Cache, parts: dict[str, Array], layer: Any, start: Any) -> Cache:
    """The cache with ``parts`` [batch, slots, time, …] of positions from ``start`` on, of which a chip writes its own.

    Several positions begin with one of chip 0; one position is written by the chip that holds it.
    """
    count = stripes(plan)
    place = start // count
    if parts["k"].shape[2] > 1:
        return write_parts(cache, {name: own_stripe(plan, each, 2) for name, each in parts.items()}, layer, place)
    mine = start % count == axis_index(plan.axes.positions)
    kept = {}
    for name, each in parts.items():
        at = (layer, 0, 0, place, 0)[: each.ndim + 1]
        rows = cache[name].shape[1:3]
        before = lax.dynamic_slice(cache[name], at, (1, *rows, *each.shape[2:]))[0]
        kept[name] = jnp.where(mine, each.reshape(before.shape), before)
    return write_parts(cache, kept, layer, place)


def read_stripe(plan: Plan, cache: Cache, layer: Any, limit: int) -> tuple[Cached, Cached]:
    """A chip's keys and values of the first ``limit`` positions."""
    held = striped(plan, limit) // stripes(plan)
    return read(cache, "k", layer, held), read(cache, "v", layer, held)


def held_mask(plan: Plan, start: Any) -> Striped:
    """What queries at consecutive positions from ``start`` on see of the keys that a chip holds."""
    count = stripes(plan)
    return Striped(start, 1, axis_index(plan.axes.positions), count, start // count)
