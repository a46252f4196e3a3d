"""Softmax attention: all scores at once where they are few, block by block where they would not fit.

By blocks no more scores exist than one block has: for every query the largest score so far, the sum of exponentials and
the weighted sum of values are kept, and corrected as blocks come (Milakov and Gimelshein 2018, "Online normalizer
calculation for softmax"; Rabe and Staats 2021, "Self-attention does not need O(n²) memory"). Blocks in which no query
sees a key are never visited. Exponentials are in base 2, as hardware has them, and statistics in float32. Scales of a
quantised cache are one a position, so they go into the scores and into the weights of the sum.
"""

import math
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engines.transformer.layers.kv_cache import Cached
from engines.transformer.layers.mask import Mask, QueryBlock
from engines.transformer.options import KERNEL_TOKENS
from engines.transformer.partition.plan import Plan

DIRECT_BLOCKS: Final = 2
"""Up to so many blocks of keys all scores are made at once."""
DIRECT_SCORES: Final = 16
"""Up to so many blocks of scores of a chip likewise: with more, a TPU's schedule is as short by blocks."""
BLOCK_SCORES: Final = 1 << 22
"""As many sequences share a block as keep its scores within this."""
LOWEST: Final = -1e30
"""The largest of no scores: below every score, and finite, so that it can be subtracted from itself."""


class Partial(NamedTuple):
    """Attention to some of the keys, which attention to others can take further.

    ``values``: [batch, slots, group, time, dim] = Σ 2^(score − top)·value; ``tops`` and ``sums``: [batch, slots, group,
    time, 1], the largest score and Σ 2^(score − top). All float32.
    """

    values: Array
    tops: Array
    sums: Array


def attend(
    plan: Plan, q: Array, keys: Cached, vals: Cached, mask: Mask, shared: tuple[Cached, Cached] | None = None
) -> Array:
    """q: [batch, time, heads, dim], keys and vals: [batch, slots, limit, dim] → [batch, time, heads, dim].

    ``mask`` says which keys a query sees, also of the ``shared`` keys and values, which are one sequence's. Queries
    hold :func:`engines.transformer.params.parameters.query_factor` already.
    """
    (batch, time, _, dim), limit = q.shape, keys.values.shape[2]
    plain = mask.is_whole_prompt and shared is None and keys.scale is None
    if plan.prefill.attention == "splash" and plain and time == limit and limit % KERNEL_TOKENS == 0:
        from engines.transformer.layers.splash_attention import kernel_attend

        return kernel_attend(q, keys.values, vals.values, mask)
    scaled = q.reshape(batch, time, keys.values.shape[1], -1, dim)
    start = None if shared is None else to_shared(plan, scaled, *shared, mask.of_prefix())
    if by_blocks(plan, q.shape, limit):
        part = blockwise(plan, scaled, keys, vals, mask, start)
    else:
        part = direct(plan, scaled, keys, vals, mask.seen(jnp.arange(limit)[None, :], QueryBlock(time)), start)
    return finished(part, q.dtype)


def to_shared(plan: Plan, scaled: Array, keys: Cached, vals: Cached, mask: Mask) -> Partial:
    """Attention of every query to the keys of one sequence: the queries of all sequences in one product."""
    batch, time, slots, group, dim = scaled.shape
    limit = keys.values.shape[2]
    folded = scaled.reshape(1, batch * time, slots, group, dim)
    if time > 1 and by_blocks(plan, (1, batch * time, slots * group, dim), limit):
        part = blockwise(plan, folded, keys, vals, mask)
    else:
        seen = mask.seen(np.arange(limit)[None, :], QueryBlock(batch * time))
        part = direct(plan, folded, keys, vals, seen)
    shape = (slots, group, batch, time)
    return Partial(*(jnp.moveaxis(each.reshape(*shape, each.shape[-1]), 2, 0) for each in part))


def by_blocks(plan: Plan, queries: tuple[int, ...], limit: int) -> bool:
    """Whether queries [batch, time, heads, dim] meet ``limit`` keys block by block; a single one never does."""
    batch, time, heads, _ = queries
    asked = plan.prefill.attention
    if time == 1 or asked in ("direct", "blockwise"):
        return time > 1 and asked == "blockwise"
    block = plan.prefill.block
    return limit > DIRECT_BLOCKS * block and batch * heads * time * limit > DIRECT_SCORES * block**2 * _shards(plan)


def direct(plan: Plan, scaled: Array, keys: Cached, vals: Cached, seen: Array, start: Partial | None = None) -> Partial:
    """All scores at once: ``seen`` [time, limit] says which keys a query sees. ``start`` is attention to other keys."""
    exact = lax.Precision.HIGHEST if plan.act_dtype == "float32" else lax.Precision.DEFAULT
    scores = jnp.einsum(
        "btsgd,bskd->bsgtk",
        scaled,
        keys.values.astype(scaled.dtype),
        precision=exact,
        preferred_element_type=jnp.float32,
    )
    if keys.scale is not None:
        scores = scores * keys.scale[:, :, None, None]
    scores = jnp.where(seen, scores, -jnp.inf)
    tops = scores.max(axis=-1, keepdims=True)
    tops = tops if start is None else jnp.maximum(tops, start.tops)
    weights = jnp.exp2(scores - tops)
    sums = weights.sum(axis=-1)[..., None]
    if vals.scale is not None:
        weights = weights * vals.scale[:, :, None, None]
    values = jnp.einsum(
        "bsgtk,bskd->bsgtd",
        weights.astype(scaled.dtype),
        vals.values.astype(scaled.dtype),
        precision=exact,
        preferred_element_type=jnp.float32,
    )
    if start is None:
        return Partial(values, tops, sums)
    kept = jnp.exp2(start.tops - tops)
    return Partial(start.values * kept + values, tops, start.sums * kept + sums)


def blockwise(
    plan: Plan, scaled: Array, keys: Cached, vals: Cached, mask: Mask, start: Partial | None = None
) -> Partial:
    """One block of scores at a time. ``start`` is attention to other keys.

    One flat loop over (sequences, block of queries, block of keys), with as many turns as there are blocks with
    something to see: a number that the compiled program states, unless the mask is traced.
    """
    batch, time, slots, group, dim = scaled.shape
    limit = keys.values.shape[2]
    rows, across, deep = block_shape(plan, batch, slots * group, time, limit)
    parts = math.ceil(time / across)
    grown = parts * across
    scaled = jnp.pad(scaled, ((0, 0), (0, grown - time), (0, 0), (0, 0), (0, 0)))
    mask = mask.padded(grown)
    begins, ends = mask.key_blocks(across, time, deep, limit)
    turns = (ends - begins).sum() * (batch // rows)
    ends, begins = jnp.asarray(ends, jnp.int32), jnp.asarray(begins, jnp.int32)

    def turn(_: Any, carry: Any) -> Any:
        row, part, block, found = carry
        query_at, key_at = part * across, jnp.minimum(block * deep, limit - deep)
        query = lax.dynamic_slice(scaled, (row, query_at, 0, 0, 0), (rows, across, slots, group, dim))
        key, val = jax.tree.map(partial(_cut, rows=(row, rows), positions=(key_at, deep)), (keys, vals))
        at = key_at + jnp.arange(deep)[None, :]
        # The last block begins early enough to be whole: what it repeats is not seen again.
        seen = mask.seen(at, QueryBlock(across, query_at)) & (at >= block * deep)
        here = (row, 0, 0, query_at, 0)
        sizes = (rows, slots, group, across)
        before = Partial(*(lax.dynamic_slice(each, here, (*sizes, each.shape[-1])) for each in found))
        after = direct(plan, query, key, val, seen, before)
        found = Partial(*(lax.dynamic_update_slice(old, new, here) for old, new in zip(found, after, strict=True)))
        done = block + 1 == ends[part]
        part = jnp.where(done, part + 1, part)
        over = part == parts
        row, part = jnp.where(over, row + rows, row), jnp.where(over, 0, part)
        return row, part, jnp.where(done, begins[part], block + 1), found

    shape = (batch, slots, group, grown)
    if start is None:
        start = Partial(jnp.zeros((*shape, dim)), jnp.full((*shape, 1), LOWEST), jnp.zeros((*shape, 1)))
    else:
        start = Partial(*(jnp.pad(each, ((0, 0),) * 3 + ((0, grown - time), (0, 0))) for each in start))
    number = jnp.zeros((), jnp.int32)
    turns = turns if isinstance(turns, Array) else int(turns)
    found = lax.fori_loop(0, turns, turn, (number, number, begins[0], start))
    return Partial(*(each[:, :, :, :time] for each in found[-1]))


def block_shape(plan: Plan, batch: int, heads: int, time: int, limit: int) -> tuple[int, int, int]:
    """Sequences, queries and keys of one block: queries in even parts, sequences as many as divide the batch.

    Seen whole, the batch is not cut: it is split over chips already.
    """
    most, deep = plan.prefill.block, min(plan.prefill.block, limit)
    across = math.ceil(time / math.ceil(time / most))
    fitting = max(1, BLOCK_SCORES // (heads * across * deep))
    cut = plan.annotation is None
    rows = next(each for each in range(min(fitting, batch), 0, -1) if batch % each == 0) if cut else batch
    return rows, across, deep


def finished(part: Partial, dtype: Any) -> Array:
    """The weighted mean of values: [batch, time, heads, dim] in ``dtype``."""
    out = (part.values / part.sums).astype(dtype)
    batch, slots, group, time, dim = out.shape
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, time, slots * group, dim)


def _cut(cached: Array, rows: tuple[Any, int], positions: tuple[Any, int]) -> Array:
    """[batch, slots, limit, …] → the part of it that begins at, and has so many, ``rows`` and ``positions``."""
    some: Array = lax.dynamic_slice_in_dim(cached, *rows, axis=0)
    part: Array = lax.dynamic_slice_in_dim(some, *positions, axis=2)
    return part


def _shards(plan: Plan) -> int:
    """Among how many chips the batch and heads of whole arrays are split; 1 where arrays are a chip's own."""
    if plan.annotation is None:
        return 1
    axes = plan.annotation.plan.axes
    return axes.size(axes.sequence) * axes.size(axes.head)
