"""Attention over the positions of a sequence: every chip holds the keys and values of some of them (:mod:`stripes`).

A whole prompt exchanges columns for positions, and keys and values go around a ring of the chips, each of which attends
to them with the queries of its own positions (Liu et al. 2023, "Ring attention", arXiv 2310.01889). A decode step, or a
chunk of a prompt, gathers the queries instead: each chip attends to the keys that it holds, and the partial results are
merged.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engines.transformer.comm.collectives import all_gather, axis_index, reduce_scatter
from engines.transformer.comm.ring import pass_on
from engines.transformer.layers.kv_cache import Cached, keys_and_values, merge_slots, split_slots
from engines.transformer.layers.mask import BlockMask, Window
from engines.transformer.layers.online_softmax import (
    Partial,
    attend_to_part,
    normalized,
    nothing,
)
from engines.transformer.layers.per_head import per_head
from engines.transformer.layers.positions import Consecutive, Positions
from engines.transformer.layers.stripes import Striped, striped, stripes
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan


def reads_whole_prompt(positions: Positions, time: int, limit: int) -> bool:
    """Whether the new positions are all that there are, as known at compile time, and more than one."""
    start = positions.start if isinstance(positions, Consecutive) else None
    return isinstance(start, int) and start == 0 and time == limit and time > 1


def first_position(positions: Positions) -> Any:
    """Where all sequences continue; sequences that are packed have no positions to split."""
    assert isinstance(positions, Consecutive)
    return positions.start


def to_positions(plan: Plan, x: Array) -> Array:
    """[batch, time, chunks, width] → this chip's [batch, time/n, more chunks, width], chunks ascending."""
    x = jnp.pad(x, ((0, 0), (0, striped(plan, x.shape[1]) - x.shape[1]), (0, 0), (0, 0)))
    cut = x.reshape(x.shape[0], -1, stripes(plan), *x.shape[2:])
    moved = lax.all_to_all(cut, plan.axes.positions, split_axis=2, concat_axis=2, tiled=True)
    chunks: Array = moved.reshape(*moved.shape[:2], -1, x.shape[-1])
    return chunks


def from_positions(plan: Plan, x: Array, time: int) -> Array:
    """The inverse of :func:`to_positions`."""
    cut = x.reshape(*x.shape[:2], stripes(plan), -1, x.shape[-1])
    moved = lax.all_to_all(cut, plan.axes.positions, split_axis=2, concat_axis=2, tiled=True)
    whole: Array = moved.reshape(x.shape[0], -1, *moved.shape[3:])
    return whole[:, :time]


def of_heads(held: Any, mine: Array | None) -> Any:
    """Keys and values [batch, slots, …] by slot → by query head, each of which reads slot ``mine``; or as they are."""
    return held if mine is None else jax.tree.map(lambda each: jnp.take(each, mine, axis=1), held)


def attend_in_ring(
    plan: Plan,
    q: Array,
    parts: dict[str, Array],
    mine: Array | None,
    window: Window | None = None,
    sinks: Array | None = None,
) -> Array:
    """q: [batch, time/n, heads, dim] of a chip's positions of a whole prompt → the same.

    ``parts``: its keys and values in the cache's format, [batch, slots, time/n, …], of which the query heads read the
    slots ``mine`` (:func:`of_heads`). They are sent on while a chip attends to them.
    ``sinks`` are those of all padded heads.
    """
    axes, count = plan.axes.positions, stripes(plan)
    (batch, time, heads, dim), slots = q.shape, parts["k"].shape[1]
    slots = slots if mine is None else heads
    scaled = q.reshape(batch, time, slots, -1, dim)
    per_query = per_head(plan, sinks, batch, 1, slots)
    ring = snake(tuple(plan.axes.size((axis,)) for axis in axes))
    me = axis_index(axes)
    place = jnp.asarray(np.argsort(ring))[me]

    def attended(held: dict[str, Array], step: Any, before: Partial) -> Partial:
        holder = jnp.asarray(ring)[(place - step) % count]
        keys, values = of_heads(keys_and_values(held), mine)
        mask = Striped(me, count, holder, count, window=window)
        return attend_to_part(plan, scaled, keys, values, mask, before, per_query)

    def turn(carry: tuple[dict[str, Array], Partial], step: Array) -> tuple[tuple[dict[str, Array], Partial], None]:
        held, before = carry
        return (pass_on(plan, held, axes, ring), attended(held, step, before)), None

    carry = parts, _nothing(scaled, parts["v"].shape[-1])
    (held, found), _ = lax.scan(turn, carry, jnp.arange(count - 1))
    return normalized(attended(held, count - 1, found), q.dtype, per_query.sinks)


def snake(sizes: tuple[int, ...]) -> list[int]:
    """A ring through the chips of these axes, numbered with the last axis fastest; neighbours are one hop apart.

    Every row is walked back after the one before it; from the last chip to the first it is one hop where the first size
    is even and its axis wraps.
    """
    ring = [0]
    for size in sizes:
        ring = [
            number * size + (size - 1 - each if row % 2 else each)
            for row, number in enumerate(ring)
            for each in range(size)
        ]
    return ring


def _nothing(scaled: Array, dim: int) -> Partial:
    """Attention of queries [batch, time, slots, group, …] to no key."""
    batch, time, slots, group, _ = scaled.shape
    return nothing((batch, slots, group, time), dim)


def gather_heads(plan: Plan, x: Array) -> Array:
    """[batch, time, chunks, width] → those of all chips that share the positions, chunks ascending."""
    return all_gather(x, plan.axes.positions, 2)


def attend_to_held(
    plan: Plan, q: Array, keys: Cached, vals: Cached, mask: BlockMask, slots: int = 1, sinks: Array | None = None
) -> Array:
    """q: [batch, time, heads, dim], gathered → the result for a chip's own heads, [batch, time, heads/n, dim].

    Each chip attends to the keys that it holds. The largest scores and the sums are gathered, two numbers a query;
    every chip weighs its values by them, which are then summed where their heads belong. ``slots`` are those that the
    cache folds into the batch, ``sinks`` those of all padded heads.
    """
    heads = per_head(plan, sinks, q.shape[0], slots, keys.values.shape[1])
    q = split_slots(q, slots)
    batch, time, _, dim = q.shape
    scaled = q.reshape(batch, time, keys.values.shape[1], -1, dim)
    part = attend_to_part(plan, scaled, keys, vals, mask, _nothing(scaled, vals.values.shape[-1]), heads)
    own = weighed(part, plan.axes.positions, q.dtype, heads.sinks)
    return reduce_scatter(merge_slots(own, slots), plan.axes.positions, 2)


def weighed(part: Partial, axes: Axes, dtype: Any, sinks: Array | None) -> Array:
    """Partial attention on each chip of ``axes`` → [batch, time, heads, dim], whose sum over them is the whole."""
    statistics = lax.all_gather(jnp.stack([part.tops, part.sums]), axes)
    tops, sums = statistics[:, 0], statistics[:, 1]
    top = tops.max(axis=0)
    total = (sums * jnp.exp2(tops - top)).sum(axis=0)
    # A sink counts once: every chip divides by the same sum.
    return normalized(Partial(part.values * jnp.exp2(part.tops - top), top, total), dtype, sinks)
