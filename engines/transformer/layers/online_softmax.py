"""Softmax attention: all scores at once where they are few, block by block where they would not fit.

Blockwise, only the scores of one block exist at a time: for each query the largest score so far, the sum of
exponentials and the weighted sum of values are kept, and rescaled block by block (Milakov and Gimelshein 2018, "Online
normalizer calculation for softmax"; Rabe and Staats 2021, "Self-attention does not need O(n²) memory"). Blocks in which
no query sees a key are skipped. Exponentials are in base 2, as in hardware, and statistics in float32. A quantized
cache has one scale a position, which is applied to the scores (keys) and to the softmax weights (values).
"""

import math
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engines.transformer.layers.kv_cache import Cached
from engines.transformer.layers.mask import AttendsItself, BlockMask, Mask, QueryBlock
from engines.transformer.layers.own_mask import OwnCausal
from engines.transformer.layers.per_head import NONE, PerHead
from engines.transformer.layers.score_blocks import block_shape, in_strips, uses_blocks
from engines.transformer.options import KERNEL_TOKENS
from engines.transformer.partition.plan import Plan

LOWEST: Final = -1e30
"""The maximum before any score: below every score, and finite, so that subtracting it from itself gives 0."""


class Partial(NamedTuple):
    """Attention to a part of the keys, before normalization; attention to other keys can be added.

    ``values``: [batch, slots, group, time, dim] = Σ 2^(score − top)·value; ``tops`` and ``sums``: [batch, slots, group,
    time, 1], the largest score and Σ 2^(score − top). All float32.
    """

    values: Array
    tops: Array
    sums: Array


class NewToken(NamedTuple):
    """Key and value [batch, slots, 1, dim] of the one new token, and ``at`` [1, limit], true at its position."""

    key: Cached
    value: Cached
    at: Array


def attend(
    plan: Plan,
    q: Array,
    keys: Cached,
    vals: Cached,
    mask: Mask,
    shared: tuple[Cached, Cached] | None = None,
    new: tuple[Cached, Cached] | None = None,
    heads: PerHead = NONE,
) -> Array:
    """q: [batch, time, heads, dim], keys and vals: [batch, slots, limit, dim] → [batch, time, heads, dim].

    ``mask`` says which keys a query sees, also of the ``shared`` prefix, keys and values of batch 1. The key and value
    of the one ``new`` token stand for those at its position. ``heads`` has what scores have of each head. Queries are
    already scaled by :func:`engines.transformer.params.describe_layers.query_factor`.
    """
    (batch, time, _, dim), limit = q.shape, keys.values.shape[2]
    plain = mask.is_whole_prompt and shared is None and keys.scale is None and vals.values.shape[-1] == dim
    if plan.prefill.attention == "splash" and plain and time == limit and limit % KERNEL_TOKENS == 0:
        from engines.transformer.layers.splash_attention import kernel_attend

        return kernel_attend(q, keys.values, vals.values, mask, heads.sinks, plan.model.attn_softcap)
    scaled = q.reshape(batch, time, keys.values.shape[1], -1, dim)
    start = None
    if shared is not None:
        before = mask.of_prefix(time, plan.prefill.prefix, shared[0].values.shape[2])
        start = attend_prefix(plan, scaled, *shared, before, heads)
    if isinstance(mask, AttendsItself):
        part = mask.attend(plan, scaled, keys, vals, heads)
    elif in_strips(plan, q.shape, limit, mask) and start is None:
        part = strips(plan, scaled, keys, vals, mask, heads)
    elif uses_blocks(plan, q.shape, limit) and not isinstance(mask, OwnCausal):
        part = blockwise(plan, scaled, keys, vals, mask, start, heads)
    else:
        at, queries = jnp.arange(limit)[None, :], QueryBlock(time)
        own = None if new is None else NewToken(*new, mask.last(at))
        seen, bias = mask.seen(at, queries), heads.bias(mask, at, queries)
        part = direct(plan, scaled, keys, vals, seen, start, own, bias=bias)
    return normalized(part, q.dtype, heads.sinks)


def attend_to_part(
    plan: Plan,
    scaled: Array,
    keys: Cached,
    vals: Cached,
    mask: BlockMask,
    before: Partial,
    heads: PerHead = NONE,
) -> Partial:
    """Attention of queries [batch, time, slots, group, dim] to some of their keys, after that to others ``before``."""
    batch, time, slots, group, dim = scaled.shape
    limit = keys.values.shape[2]
    if uses_blocks(plan, (batch, time, slots * group, dim), limit):
        return blockwise(plan, scaled, keys, vals, mask, before, heads)
    at, queries = jnp.arange(limit)[None, :], QueryBlock(time)
    seen, bias = mask.seen(at, queries), heads.bias(mask, at, queries)
    return direct(plan, scaled, keys, vals, seen, before, bias=bias)


def attend_prefix(plan: Plan, scaled: Array, keys: Cached, vals: Cached, mask: Mask, heads: PerHead = NONE) -> Partial:
    """Attention of every query to the keys of the shared prefix: one matmul for the queries of all sequences."""
    batch, time, slots, group, dim = scaled.shape
    limit = keys.values.shape[2]
    folded = scaled.reshape(1, batch * time, slots, group, dim)
    if time > 1 and uses_blocks(plan, (1, batch * time, slots * group, dim), limit):
        part = blockwise(plan, folded, keys, vals, mask, heads=heads)
    else:
        at, queries = np.arange(limit)[None, :], QueryBlock(batch * time)
        seen, bias = mask.seen(at, queries), heads.bias(mask, at, queries)
        # Where all of the prefix is before a query's window, it sees none of it.
        start = None if mask.sees_some else nothing((1, slots, group, batch * time), dim)
        part = direct(plan, folded, keys, vals, seen, start, bias=bias)
    shape = (slots, group, batch, time)
    return Partial(*(jnp.moveaxis(each.reshape(*shape, each.shape[-1]), 2, 0) for each in part))


def strips(plan: Plan, scaled: Array, keys: Cached, vals: Cached, mask: Mask, heads: PerHead = NONE) -> Partial:
    """Each strip of queries attends at once to the keys from its window's first up to its last one, which it sees."""
    time, most = scaled.shape[1], plan.prefill.block
    parts = []
    for start in range(0, time, most):
        stop = min(start + most, time)
        first, queries = mask.first_seen(start), QueryBlock(stop - start, start)
        at = jnp.arange(first, stop)[None, :]
        seen = mask.seen(at, queries)
        key, val = jax.tree.map(lambda each, cut=slice(first, stop): each[:, :, cut], (keys, vals))
        bias = heads.bias(mask, at, queries)
        parts.append(direct(plan, scaled[:, start:stop], key, val, seen, bias=bias))
    return Partial(*(jnp.concatenate(each, axis=3) for each in zip(*parts, strict=True)))


def direct(
    plan: Plan,
    scaled: Array,
    keys: Cached,
    vals: Cached,
    seen: Array,
    start: Partial | None = None,
    new: NewToken | None = None,
    *,
    bias: Array | None = None,
) -> Partial:
    """All scores at once; ``seen`` [time, limit]: which keys a query sees. ``start``: attention to other keys.

    ``bias`` [batch, slots, group, time, limit], or 1 instead of a dimension, is added to scores.
    """
    exact = lax.Precision.HIGHEST if plan.act_dtype == "float32" else lax.Precision.DEFAULT
    scores = capped(plan, _scores(scaled, keys, exact))
    scores = scores if bias is None else scores + bias
    scores = jnp.where(seen, scores, -jnp.inf)
    if new is not None:
        own = capped(plan, _own_score(scaled, new.key))
        scores = jnp.where(new.at, own, scores)
    tops = scores.max(axis=-1, keepdims=True)
    tops = tops if start is None else jnp.maximum(tops, start.tops)
    weights = jnp.exp2(scores - tops)
    sums = weights.sum(axis=-1)[..., None]
    if vals.scale is not None:
        weights = weights * vals.scale[:, :, None, None]
    weights = weights if new is None else jnp.where(new.at, 0, weights)
    values = jnp.einsum(
        "bsgtk,bskd->bsgtd",
        weights.astype(scaled.dtype),
        vals.values.astype(scaled.dtype),
        precision=exact,
        preferred_element_type=jnp.float32,
    )
    if new is not None:
        value = new.value.values.astype(jnp.float32)
        value = value if new.value.scale is None else value * new.value.scale[..., None]
        values = values + jnp.exp2(own - tops) * value[:, :, None]
    if start is None:
        return Partial(values, tops, sums)
    kept = jnp.exp2(start.tops - tops)
    return Partial(start.values * kept + values, tops, start.sums * kept + sums)


def _scores(scaled: Array, keys: Cached, exact: Any) -> Array:
    """scaled: [batch, time, slots, group, dim] → the score of every key, [batch, slots, group, time, limit]."""
    dim = keys.values.shape[-1]
    scores: Array = jnp.einsum(
        "btsgd,bskd->bsgtk",
        scaled if keys.more is None else scaled[..., :dim],
        keys.values.astype(scaled.dtype),
        precision=exact,
        preferred_element_type=jnp.float32,
    )
    if keys.scale is not None:
        scores = scores * keys.scale[:, :, None, None]
    return scores if keys.more is None else scores + _scores(scaled[..., dim:], keys.more, exact)


def capped(plan: Plan, scores: Array) -> Array:
    """Scores in base 2 within the model's soft cap c: c·tanh(score/c) of natural ones."""
    if plan.model.attn_softcap is None:
        return scores
    cap = plan.model.attn_softcap * math.log2(math.e)
    return cap * jnp.tanh(scores / cap)


def nothing(shape: tuple[int, ...], dim: int) -> Partial:
    """Attention of queries [batch, slots, group, time] to no key."""
    return Partial(jnp.zeros((*shape, dim)), jnp.full((*shape, 1), LOWEST), jnp.zeros((*shape, 1)))


def _own_score(scaled: Array, key: Cached) -> Array:
    """scaled: [batch, 1, slots, group, dim], of the same token as the key → its score [batch, slots, group, 1, 1]."""
    wide = scaled[:, 0].astype(jnp.float32) * key.values.astype(jnp.float32)
    score = wide.sum(axis=-1)[..., None, None]
    return score if key.scale is None else score * key.scale[..., None, None]


def blockwise(
    plan: Plan,
    scaled: Array,
    keys: Cached,
    vals: Cached,
    mask: BlockMask,
    start: Partial | None = None,
    heads: PerHead = NONE,
) -> Partial:
    """One block of scores at a time. ``start``: attention to other keys, if any.

    One flat loop over (sequences, block of queries, block of keys) that visits only the blocks of
    :meth:`Mask.key_blocks`. The trip count is a constant of the compiled program, unless the mask is traced.
    """
    batch, time, slots, group, dim = scaled.shape
    limit = keys.values.shape[2]
    rows, queries, keys_per_block = block_shape(plan, batch, slots * group, time, limit)
    parts = math.ceil(time / queries)
    grown = parts * queries
    scaled = jnp.pad(scaled, ((0, 0), (0, grown - time), (0, 0), (0, 0), (0, 0)))
    mask = mask.padded(grown)
    begins, ends = mask.key_blocks(queries, time, keys_per_block, limit)
    turns = (ends - begins).sum() * (batch // rows)
    ends, begins = jnp.asarray(ends, jnp.int32), jnp.asarray(begins, jnp.int32)

    def turn(_: Any, carry: Any) -> Any:
        row, part, block, found = carry
        query_at, key_at = part * queries, jnp.minimum(block * keys_per_block, limit - keys_per_block)
        query = lax.dynamic_slice(scaled, (row, query_at, 0, 0, 0), (rows, queries, slots, group, dim))
        key, val = jax.tree.map(partial(_cut, rows=(row, rows), positions=(key_at, keys_per_block)), (keys, vals))
        at = key_at + jnp.arange(keys_per_block)[None, :]
        # The last block starts early enough to be full; the keys that it repeats are masked.
        seen = mask.seen(at, QueryBlock(queries, query_at)) & (at >= block * keys_per_block)
        bias = heads.rows(row, rows).bias(mask, at, QueryBlock(queries, query_at))
        here = (row, 0, 0, query_at, 0)
        sizes = (rows, slots, group, queries)
        before = Partial(*(lax.dynamic_slice(each, here, (*sizes, each.shape[-1])) for each in found))
        after = direct(plan, query, key, val, seen, before, bias=bias)
        found = Partial(*(lax.dynamic_update_slice(old, new, here) for old, new in zip(found, after, strict=True)))
        done = block + 1 == ends[part]
        part = jnp.where(done, part + 1, part)
        over = part == parts
        row, part = jnp.where(over, row + rows, row), jnp.where(over, 0, part)
        return row, part, jnp.where(done, begins[part], block + 1), found

    shape = (batch, slots, group, grown)
    if start is None:
        start = nothing(shape, vals.values.shape[-1])
    else:
        start = Partial(*(jnp.pad(each, ((0, 0),) * 3 + ((0, grown - time), (0, 0))) for each in start))
    number = jnp.zeros((), jnp.int32)
    turns = turns if isinstance(turns, Array) else int(turns)
    found = lax.fori_loop(0, turns, turn, (number, number, begins[0], start))
    return Partial(*(each[:, :, :, :time] for each in found[-1]))


def normalized(part: Partial, dtype: Any, sinks: Array | None = None) -> Array:
    """The softmax-weighted mean of values: [batch, time, heads, dim] in ``dtype``.

    ``sinks`` [batch, slots, group, 1, 1], or 1 instead of the batch, are scores that take weight and give no value.
    """
    if sinks is not None:
        tops = jnp.maximum(part.tops, sinks)
        kept = jnp.exp2(part.tops - tops)
        part = Partial(part.values * kept, tops, part.sums * kept + jnp.exp2(sinks - tops))
    out = (part.values / part.sums).astype(dtype)
    batch, slots, group, time, dim = out.shape
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, time, slots * group, dim)


def _cut(cached: Array, rows: tuple[Any, int], positions: tuple[Any, int]) -> Array:
    """[batch, slots, limit, …] → its block of ``rows`` and ``positions``, each (start, count)."""
    some: Array = lax.dynamic_slice_in_dim(cached, *rows, axis=0)
    part: Array = lax.dynamic_slice_in_dim(some, *positions, axis=2)
    return part
