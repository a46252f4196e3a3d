"""Attention over heads or over the batch, with its cache.

q, k and v leave the projections as chunks of columns. Over heads a chip attends with its own chunks; over the batch an
all-to-all first swaps columns for sequences (Pope et al. 2022, section 3.3). Key/value heads that are fewer than the
chips do not split like query heads: their few columns are gathered and each chip keeps the heads that it reads.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collectives import axis_index, constrain
from engines.transformer.layers.kv_cache import PREFIX, Cache, read, write
from engines.transformer.layers.online_softmax import attend
from engines.transformer.layers.packing import Packing, write_packed
from engines.transformer.layers.rope import RopeAngles, rotate
from engines.transformer.partition.kv_heads import folds, kv_slots
from engines.transformer.partition.plan import Axes, Plan


class Where(NamedTuple):
    """Which layer runs on which positions: ``position`` is the first new token's.

    ``limit`` (static) is the number of cached positions that can matter, ``time`` (static) that of the new ones.
    ``turn`` is the new positions' rotary turn. Of packed rows ``position`` says where sequences lie, and ``limit`` is
    the longest.
    """

    layer: Any
    position: Any
    limit: int
    time: int
    turn: RopeAngles | None


def attention(plan: Plan, qkv: list[Array], cache: Cache, where: Where) -> tuple[Array, Cache]:
    """Attend from ``time`` new positions to all before them and themselves.

    qkv: [batch.batch_axes, time, chunks.column_axes, q | k | v], side by side so that one all-to-all takes all three,
    or q and k | v where they were made apart. Returns what q attends to, in q's place and of its width, and the cache
    with the new k and v.
    """
    if plan.attention_axes or len(qkv) == 1:
        qkv = q_and_kv(plan, to_batch(plan, jnp.concatenate(qkv, axis=-1) if len(qkv) > 1 else qkv[0]))
    attended, cache = attend_cached(plan, qkv, cache, where)
    return from_batch(plan, attended), cache


def q_and_kv(plan: Plan, columns: Array) -> list[Array]:
    """[…, q | k | v] → q and k | v."""
    return [columns[..., : plan.q_width], columns[..., plan.q_width :]]


def attend_cached(plan: Plan, qkv: list[Array], cache: Cache, where: Where) -> tuple[Array, Cache]:
    """:func:`attention` on the chip that has the sequences: q and k | v as :func:`to_batch` leaves them."""
    layer, position, limit, _, turn = where
    kept, wanted, even = kv_slots(plan)
    q = _by_head(qkv[0], plan.model.head_dim)
    k, v = _kv_heads(plan, qkv[1], kept)
    packing = position.part(plan, plan.sequence_axes) if isinstance(position, Packing) else None
    q = constrain(plan, rotate(plan.model, q, turn), "sequence_axes", "", "head_axes", "")
    k, v = (constrain(plan, each, "sequence_axes", "", "kv_axes", "") for each in (rotate(plan.model, k, turn), v))
    # Without it a TPU lays the cached keys out as the rotation would like, and copies them in every step.
    q, k = lax.optimization_barrier((q, k))
    prefix = plan.reading.prefix
    slots = 1
    if packing is None:
        position = position - prefix if prefix else position
        cache, own = write(plan, cache, k, v, layer, position)
        # A whole prompt attends to itself: read back, its cache would be laid out for that, and decoding copy it.
        if not (isinstance(position, int) and position == 0 and limit == where.time):
            own = read(cache, "k", layer, limit), read(cache, "v", layer, limit)
            slots = k.shape[2] if folds(plan) else 1
    else:
        position = 0
        cache, own = write_packed(plan, cache, k, v, layer, packing, limit)
    shared = (read(cache, f"{PREFIX}k", layer, prefix), read(cache, f"{PREFIX}v", layer, prefix)) if prefix else None
    q = _apart(q, slots)
    if not even:
        mine = jnp.asarray(wanted)[axis_index(plan.head_axes)]
        own, shared = jax.tree.map(lambda each: jnp.take(each, mine, axis=1), (own, shared))
    out = attend(plan, q, *own, position, shared, None if packing is None else packing.first[0])
    out = _together(out, slots)
    return out.reshape(*out.shape[:2], -1, plan.q_width), cache


def _apart(q: Array, slots: int) -> Array:
    """[batch, time, heads, dim] → [batch·slots, time, heads/slots, dim]: the queries of a slot as a sequence's."""
    batch, time, _, dim = q.shape
    return q.reshape(batch, time, slots, -1, dim).swapaxes(1, 2).reshape(batch * slots, time, -1, dim)


def _together(out: Array, slots: int) -> Array:
    """The way back of :func:`_apart`."""
    _, time, group, dim = out.shape
    return out.reshape(-1, slots, time, group, dim).swapaxes(1, 2).reshape(-1, time, slots * group, dim)


def _by_head(x: Array, head_dim: int) -> Array:
    """[batch, time, chunks, width] → [batch, time, heads, dim]."""
    return x.reshape(*x.shape[:2], -1, head_dim)


def _kv_heads(plan: Plan, x: Array, kept: list[list[int]]) -> list[Array]:
    """x: [batch.attention, time, chunks.rest, k | v] → k and v of the heads that this chip keeps."""
    x = constrain(plan, x, "sequence_axes", "", "kv_axes", "")
    if plan.head_axes and not plan.kv_splits_by_head:
        x = lax.all_gather(x, plan.head_axes, axis=2)
        x = _ordered(plan, x, plan.head_axes + _moved_axes(plan))
    both = [x[..., : plan.kv_width], x[..., plan.kv_width :]]
    if plan.kv_splits_by_head:
        return [_by_head(each, plan.model.head_dim) for each in both]
    real = plan.kv_heads * plan.model.head_dim
    both = [_by_head(each.reshape(*each.shape[:2], -1)[..., :real], plan.model.head_dim) for each in both]
    if len(kept[0]) == plan.kv_heads:
        return both
    return [jnp.take(each, jnp.asarray(kept)[axis_index(plan.head_axes)], axis=2) for each in both]


def _moved_axes(plan: Plan) -> Axes:
    """``attention_axes`` in the order of columns."""
    return tuple(axis for axis in plan.column_axes if axis in plan.attention_axes)


def _ordered(plan: Plan, x: Array, axes: Axes) -> Array:
    """x: [batch, time, (one dimension an axis of ``axes``, together), width] → chunks in ascending order."""
    sizes = [plan.size((axis,)) for axis in axes]
    wanted = [axis for axis in plan.column_axes if axis in axes]
    x = x.reshape(*x.shape[:2], *sizes, plan.local_chunks, x.shape[-1])
    order = [0, 1, *(2 + axes.index(axis) for axis in wanted), x.ndim - 2, x.ndim - 1]
    x = x.transpose(order)
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def to_batch(plan: Plan, x: Array) -> Array:
    """[batch, time, chunks, width] → [batch.attention_axes, time, more chunks, width], chunks ascending."""
    axes = plan.attention_axes
    if not axes:
        return x
    x = lax.all_to_all(x, axes, split_axis=0, concat_axis=2, tiled=True)
    return _ordered(plan, x, axes)


def from_batch(plan: Plan, x: Array) -> Array:
    """The way back of :func:`to_batch`."""
    axes = plan.attention_axes
    if not axes:
        return x
    moved = _moved_axes(plan)
    x = x.reshape(*x.shape[:2], *(plan.size((axis,)) for axis in moved), plan.local_chunks, x.shape[-1])
    x = x.transpose([0, 1, *(2 + moved.index(axis) for axis in axes), x.ndim - 2, x.ndim - 1])
    x = x.reshape(*x.shape[:2], -1, x.shape[-1])
    back: Array = lax.all_to_all(x, axes, split_axis=2, concat_axis=0, tiled=True)
    return back
