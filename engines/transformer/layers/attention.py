"""Attention over heads, over the batch or over the sequence, with its cache.

The projections return q, k and v as chunks of columns. Over heads, a chip attends with its own chunks; over the batch,
an all-to-all first exchanges columns for sequences (Pope et al. 2022, section 3.3). Where there are fewer key/value
heads than chips, their columns are all-gathered and each chip keeps the heads that it reads.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from engines.core.layer_kind import LayerKind
from engines.transformer.comm.collectives import axis_index
from engines.transformer.layers.kv_cache import PREFIX, Cache, merge_slots, quantized_kv, read, split_slots, window_of
from engines.transformer.layers.norm import head_norm
from engines.transformer.layers.online_softmax import attend
from engines.transformer.layers.per_head import per_head
from engines.transformer.layers.positions import Positions
from engines.transformer.layers.rope import PERMUTED_TOKENS, RopeAngles, rotate
from engines.transformer.layers.sequence_attention import (
    attend_in_ring,
    attend_to_held,
    first_position,
    from_positions,
    gather_heads,
    of_heads,
    reads_whole_prompt,
    to_positions,
)
from engines.transformer.layers.stripes import store_prompt, store_stripe
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.constraint import constrain
from engines.transformer.partition.kv_heads import folds_slots, kv_slots
from engines.transformer.partition.plan import Plan


class LayerContext(NamedTuple):
    """What a layer needs besides activations: its number in its stack, and the positions of the new tokens.

    ``kind``, ``time`` and ``limit`` are static. ``kind`` says what differs between layers; there are ``time`` new
    tokens a sequence; ``limit`` is the number of cached positions that attention reads, or for packed rows the length
    of the longest sequence. ``angles`` are None without rotary embeddings. ``heads`` are the layer's own tensors of
    attention beside its projections, by name.
    """

    kind: LayerKind
    layer: Any
    positions: Positions
    limit: int
    time: int
    angles: RopeAngles | None
    heads: Mapping[str, Array] = MappingProxyType({})


def attention(plan: Plan, qkv: list[Array], cache: Cache, context: LayerContext) -> tuple[Array, Cache]:
    """Attention of ``time`` new positions to themselves and all positions before them.

    qkv: [batch.batch, time, chunks.column, q | k | v] in one array, so that one all-to-all sends all three, or q and k
    | v where they were computed separately. Returns the attention output in the shape of q, and the cache with the new
    k and v.
    """
    if plan.axes.positions:
        columns = jnp.concatenate(qkv, axis=-1) if len(qkv) > 1 else qkv[0]
        return _over_positions(plan, columns, cache, context)
    if plan.axes.attention or len(qkv) == 1:
        qkv = q_and_kv(plan, to_batch(plan, jnp.concatenate(qkv, axis=-1) if len(qkv) > 1 else qkv[0]))
    attended, cache = attend_cached(plan, qkv, cache, context)
    return from_batch(plan, attended), cache


def q_and_kv(plan: Plan, columns: Array) -> list[Array]:
    """[…, q | k | v] → q and k | v."""
    return [columns[..., : plan.padded.q_width], columns[..., plan.padded.q_width :]]


def attend_cached(plan: Plan, qkv: list[Array], cache: Cache, context: LayerContext) -> tuple[Array, Cache]:
    """:func:`attention` without its all-to-alls: q and k | v are laid out as :func:`to_batch` returns them."""
    kept, wanted, even = kv_slots(plan)
    positions = context.positions.shard(plan, plan.axes.sequence)
    q, k, v = _rotated(plan, qkv, kept, context)
    q, k = _apart(plan, q, k)
    view = positions.store(plan, cache, k, v, kind=context.kind, layer=context.layer, limit=context.limit)
    cache, keys, values, mask, slots, new = view
    prefix, shared = plan.prefill.prefix, None
    if prefix:
        shared = read(cache, f"{PREFIX}k", context.layer, prefix), read(cache, f"{PREFIX}v", context.layer, prefix)
    batch, q = q.shape[0], split_slots(q, slots)
    if not even:
        mine = jnp.asarray(wanted)[axis_index(plan.axes.head)]
        (keys, values), shared, new = of_heads(((keys, values), shared, new), mine)
    heads = per_head(plan, context.heads.get("sinks"), batch, slots, keys.values.shape[1])
    out = merge_slots(attend(plan, q, keys, values, mask, shared, new, heads), slots)
    return out.reshape(*out.shape[:2], -1, plan.padded.q_width), cache


def _apart(plan: Plan, *made: Array) -> tuple[Array, ...]:
    """The arrays as they are.

    Without the barrier a TPU gives the cached keys the layout of what made them, and copies them in every step.
    """
    return made if plan.unrolled else lax.optimization_barrier(made)


def _over_positions(plan: Plan, columns: Array, cache: Cache, context: LayerContext) -> tuple[Array, Cache]:
    """:func:`attention` where positions are split: a whole prompt in a ring, else all keys where they are held."""
    kept, wanted, even = kv_slots(plan)
    start, time = first_position(context.positions), context.time
    prompt = reads_whole_prompt(context.positions, time, context.limit)
    there = to_positions if prompt else gather_heads
    q, k, v = _rotated(plan, q_and_kv(plan, there(plan, columns)), kept, context)
    parts = quantized_kv(plan, *_apart(plan, k, v))
    mine = None if even else jnp.asarray(wanted)[axis_index(plan.axes.head)]
    if prompt:
        cache = store_prompt(plan, cache, parts, kind=context.kind, layer=context.layer)
        out = attend_in_ring(plan, q, parts, mine, window_of(plan, context.kind), context.heads.get("sinks"))
        out = from_positions(plan, out.reshape(*out.shape[:2], -1, plan.padded.q_width), time)
        return out, cache
    view = store_stripe(plan, cache, parts, kind=context.kind, layer=context.layer, start=start, limit=context.limit)
    keys, values = of_heads((view.keys, view.values), mine)
    slots = len(kept[0]) if folds_slots(plan) else 1
    out = attend_to_held(plan, q, keys, values, view.mask, slots, context.heads.get("sinks"))
    return out.reshape(*out.shape[:2], -1, plan.padded.q_width), view.cache


def _rotated(plan: Plan, qkv: list[Array], kept: list[list[int]], context: LayerContext) -> list[Array]:
    """q and k | v → q, k and v: [batch.sequence, time, heads, dim] each, of the heads that this chip holds."""
    angles = context.angles
    if angles is not None and not plan.model.qk_norm and _rotates_together(plan, qkv[0], angles):
        return _rotated_together(plan, qkv, angles)
    q, (k, v) = _by_head(qkv[0], plan.model.head_dim), _kv_heads(plan, qkv[1], kept)
    if plan.model.qk_norm:
        q, k = (head_norm(plan, context.heads[name], each) for name, each in (("q_norm", q), ("k_norm", k)))
    q = constrain(plan, rotate(plan.model, q, angles), lambda cut: (cut.axes.sequence, (), cut.axes.head, ()))
    return [q, *(constrain(plan, each, _by_kv_head) for each in (rotate(plan.model, k, angles), v))]


def _rotates_together(plan: Plan, q: Array, angles: RopeAngles) -> bool:
    """Whether q, k and v of a chip's one chunk are whole heads of few tokens, which are rotated whole."""
    few = q.shape[0] * q.shape[1] <= PERMUTED_TOKENS and angles.cos.shape[-1] == plan.model.head_dim
    return few and plan.unrolled and plan.padded.kv_splits_by_head and q.shape[2] == 1


def _rotated_together(plan: Plan, qkv: list[Array], angles: RopeAngles) -> list[Array]:
    """:func:`_rotated` in one operation: v is turned by nothing. In a step of few tokens each operation counts."""
    dim = plan.model.head_dim
    heads = _by_head(jnp.concatenate(qkv, axis=-1), dim)
    queries, held = plan.padded.q_width // dim, plan.padded.kv_width // dim
    turned = (jnp.arange(queries + 2 * held) < queries + held)[:, None]
    both = RopeAngles(jnp.where(turned, angles.cos, 1), jnp.where(turned, angles.sin, 0))
    return jnp.split(rotate(plan.model, heads, both), [queries, queries + held], axis=2)


def _by_kv_head(plan: Plan) -> tuple[Axes, ...]:
    """How [batch, time, key/value heads, dim] is split."""
    return plan.axes.sequence, (), plan.kv_axes, ()


def _by_head(x: Array, head_dim: int) -> Array:
    """[batch, time, chunks, width] → [batch, time, heads, dim]."""
    return x.reshape(*x.shape[:2], -1, head_dim)


def _kv_heads(plan: Plan, x: Array, kept: list[list[int]]) -> list[Array]:
    """x: [batch.attention, time, chunks.rest, k | v] → k and v of the heads that this chip holds."""
    padded, head_dim = plan.padded, plan.model.head_dim
    x = constrain(plan, x, _by_kv_head)
    if plan.axes.head and not padded.kv_splits_by_head:
        x = lax.all_gather(x, plan.axes.head, axis=2)
        x = _ordered(plan, x, plan.axes.head + moved_axes(plan))
    both = [x[..., : padded.kv_width], x[..., padded.kv_width :]]
    if padded.kv_splits_by_head:
        return [_by_head(each, head_dim) for each in both]
    real = padded.kv_heads * head_dim
    both = [_by_head(each.reshape(*each.shape[:2], -1)[..., :real], head_dim) for each in both]
    if all(slots == list(range(padded.kv_heads)) for slots in kept):
        return both
    return [jnp.take(each, jnp.asarray(kept)[axis_index(plan.axes.head)], axis=2) for each in both]


def moved_axes(plan: Plan) -> Axes:
    """The axes of attention's all-to-all, in the order of ``column``."""
    return tuple(axis for axis in plan.axes.column if axis in plan.axes.moved)


def _ordered(plan: Plan, x: Array, axes: Axes) -> Array:
    """x: [batch, time, chunks, width], chunks ordered by ``axes`` → the same, chunks in ascending order."""
    sizes = [plan.axes.size((axis,)) for axis in axes]
    wanted = [axis for axis in plan.axes.column if axis in axes]
    x = x.reshape(*x.shape[:2], *sizes, plan.local_chunks, x.shape[-1])
    order = [0, 1, *(2 + axes.index(axis) for axis in wanted), x.ndim - 2, x.ndim - 1]
    x = x.transpose(order)
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def to_batch(plan: Plan, x: Array) -> Array:
    """[batch, time, chunks, width] → [batch.attention, time, more chunks, width], chunks ascending."""
    axes = plan.axes.attention
    if not axes:
        return x
    x = lax.all_to_all(x, axes, split_axis=0, concat_axis=2, tiled=True)
    return _ordered(plan, x, axes)


def from_batch(plan: Plan, x: Array) -> Array:
    """The inverse of :func:`to_batch`."""
    axes = plan.axes.attention
    if not axes:
        return x
    moved = moved_axes(plan)
    x = x.reshape(*x.shape[:2], *(plan.axes.size((axis,)) for axis in moved), plan.local_chunks, x.shape[-1])
    x = x.transpose([0, 1, *(2 + moved.index(axis) for axis in axes), x.ndim - 2, x.ndim - 1])
    x = x.reshape(*x.shape[:2], -1, x.shape[-1])
    back: Array = lax.all_to_all(x, axes, split_axis=2, concat_axis=0, tiled=True)
    return back
