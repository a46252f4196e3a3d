"""Multi-head latent attention: keys and values of all heads come from one latent vector a token, which is cached.

(DeepSeek-V2, arXiv 2405.04434; DeepSeek-V3, arXiv 2412.19437.) Attention runs in one of two forms on the same cache.
*Expanded*, every head's keys and values are made from the latent vectors that it reads. *Absorbed*, k_b is multiplied
into the queries and v_b into the result instead, and all heads read the latent vectors as one key/value head.
:meth:`engines.transformer.partition.plan.Plan.absorbs` chooses.

The projections down to latents are split by columns as q, k and v of heads are; their columns are then gathered, so
that every chip has whole latent vectors, for the columns of its own heads in q_b, k_b and v_b.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collective_matmul import MATMUL, few_rows
from engines.transformer.comm.collectives import all_gather, local_shard
from engines.transformer.layers.attention import LayerContext, from_batch, moved_axes, to_batch
from engines.transformer.layers.kv_cache import Cache, Cached, keys_and_values, quantized_kv, window_of
from engines.transformer.layers.mask import Causal
from engines.transformer.layers.online_softmax import attend
from engines.transformer.layers.projections import column_vectors, local_columns
from engines.transformer.layers.rope import rotate
from engines.transformer.layers.sequence_attention import (
    attend_to_held,
    first_position,
    gather_heads,
    reads_whole_prompt,
)
from engines.transformer.layers.stripes import own_stripe, store_prompt, store_stripe
from engines.transformer.params.grouped import Grouped, along
from engines.transformer.params.quantize import dequantize, quantize_tokens
from engines.transformer.params.tree import Latent, Matrix
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.constraint import constrain
from engines.transformer.partition.plan import Plan


def latent_attention(
    plan: Plan, w: Latent, down: list[Array], cache: Cache, context: LayerContext
) -> tuple[Array, Cache]:
    """Attention of ``time`` new positions to themselves and all positions before them.

    down: [batch.batch, time, chunks.column, width] of q_a, or of q itself, and of kv_a. Returns the heads' values
    [batch.batch, time, chunks.column, width of o], and the cache with the new latent vectors.
    """
    queries, latent, key = _from_latents(plan, w, down)
    absorbed = plan.absorbs(context.time, context.limit)
    if absorbed:
        queries = _absorbed(plan, w.k_b, queries)
    attended = _over_positions if plan.axes.positions else _over_sequences
    out, cache = attended(plan, w, queries, (latent, key), cache, context)
    return (_with_values(plan, w.v_b, out) if absorbed else out), cache


def _over_sequences(
    plan: Plan, w: Latent, queries: Array, new: tuple[Array, Array], cache: Cache, context: LayerContext
) -> tuple[Array, Cache]:
    """Over the batch, or all of it on every chip: queries [batch, time, chunks, width] → the same of their values."""
    axes = plan.axes.attention
    q = _rotated(plan, _by_head(plan, to_batch(plan, queries)), context)
    latent, key = (local_shard(each, axes, 0, plan.axes.size(axes)) for each in new)
    positions = context.positions.shard(plan, plan.axes.sequence)
    key = rotate(plan.model, key, context.angles)
    view = positions.store(plan, cache, latent, key, kind=context.kind, layer=context.layer, limit=context.limit)
    keys, values = _read_by(plan, w, view.keys, view.values, q, moved_axes(plan))
    out = attend(plan, q, keys, values, view.mask)
    return from_batch(plan, out.reshape(*out.shape[:2], plan.local_chunks * plan.axes.size(axes), -1)), view.cache


def _over_positions(
    plan: Plan, w: Latent, queries: Array, new: tuple[Array, Array], cache: Cache, context: LayerContext
) -> tuple[Array, Cache]:
    """:func:`_over_sequences` where positions are split.

    Of a whole prompt every chip has the latent vectors already: it attends to all with its own heads, and keeps those
    of its positions.
    """
    start = first_position(context.positions)
    latent, key = new[0], rotate(plan.model, new[1], context.angles)
    parts = quantized_kv(plan, latent, key)
    if reads_whole_prompt(context.positions, context.time, context.limit):
        own = {name: own_stripe(plan, each, 2) for name, each in parts.items()}
        cache = store_prompt(plan, cache, own, kind=context.kind, layer=context.layer)
        q = _rotated(plan, _by_head(plan, queries), context)
        mask = Causal(0, window=window_of(plan, context.kind))
        out = attend(plan, q, *_read_by(plan, w, *keys_and_values(parts), q, ()), mask)
    else:
        q = _rotated(plan, _by_head(plan, gather_heads(plan, queries)), context)
        view = store_stripe(
            plan, cache, parts, kind=context.kind, layer=context.layer, start=start, limit=context.limit
        )
        cache = view.cache
        held = _read_by(plan, w, view.keys, view.values, q, plan.axes.positions)
        out = attend_to_held(plan, q, *held, view.mask)
    return out.reshape(*out.shape[:2], plan.local_chunks, -1), cache


def _read_by(plan: Plan, w: Latent, latent: Cached, shared: Cached, q: Array, gathered: Axes) -> tuple[Cached, Cached]:
    """The keys and values that queries [batch, time, heads, dim] read, of the heads of the chips along ``gathered``."""
    if q.shape[-1] != plan.model.head_dim:
        return latent._replace(more=shared), latent
    return _expanded(plan, w, latent, shared, q.dtype, gathered)


def _from_latents(plan: Plan, w: Latent, down: list[Array]) -> tuple[Array, Array, Array]:
    """Queries [batch, time, chunks.column, q width], latent vectors [batch, time, 1, dim] and the keys of all heads.

    Nothing is rotated yet.
    """
    model, first = plan.model, down[0].shape[-1]
    latents = down[1:] if w.q_b is None else down
    columns = all_gather(jnp.concatenate(latents, axis=-1), plan.axes.column, 2)
    columns = constrain(plan, columns, lambda cut: (cut.axes.batch, (), (), ()))
    rows = columns.shape[:2]
    queries = down[0]
    if w.q_b is not None:
        assert model.q_latent_dim is not None
        whole = columns[..., :first].reshape(*rows, -1)[..., : model.q_latent_dim]
        queries = _up(plan, w.q_b, _normed(plan, whole, w.q_norm))
        columns = columns[..., first:]
    latent_dim, shared_dim = plan.cached_dims
    whole = columns.reshape(*rows, 1, -1)
    latent = _normed(plan, whole[..., :latent_dim], w.kv_norm)
    return queries, latent, whole[..., latent_dim : latent_dim + shared_dim]


def _normed(plan: Plan, x: Array, scale: Array) -> Array:
    """RMSnorm of latent vectors, whole on every chip."""
    wide = x.astype(jnp.float32)
    mean = jnp.square(wide).mean(-1, keepdims=True)
    return (wide * lax.rsqrt(mean + plan.model.norm_epsilon) * scale).astype(x.dtype)


def _up(plan: Plan, matrix: Matrix, x: Array) -> Array:
    """x: [batch, time, latent] → the columns of a chip's heads, [batch, time, chunks.column, width]."""
    rows = x.shape[:2]
    x = x.reshape(-1, x.shape[-1])
    narrow, scale = quantize_tokens(plan, x, ())
    out = dequantize(few_rows(plan, MATMUL, narrow, _own_columns(plan, matrix), jnp.float32), scale)
    out = out.reshape(len(x), plan.local_chunks, -1)
    for vector, combine in column_vectors(matrix):
        out = combine(out, local_columns(plan, vector))
    out = out.reshape(*rows, *out.shape[1:]).astype(x.dtype)
    return constrain(plan, out, lambda cut: (cut.axes.batch, (), cut.axes.column, ()))


def _own_columns(plan: Plan, matrix: Matrix) -> Any:
    """The matrix [latent, chunks.column · width] of a chip's heads, gathered where its layout gathers weights."""
    gathered, cut = plan.axes.vector

    def own(each: Array, axis: int, _unit: int) -> Array:
        return local_shard(each, cut, axis, plan.axes.size(cut))

    return along(all_gather(matrix.values.whole(), gathered, 1), 1, own)


def _heads_of(plan: Plan, matrix: Matrix, dtype: Any, also: Axes = ()) -> tuple[Array, Array | None]:
    """The matrix as [latent, heads, dim] of a chip's heads, and of those of the chips along ``also``, and its scale."""
    latent_dim = matrix.values.stack.shape[1]
    values = all_gather(_own_columns(plan, matrix), also, 1)
    values = values.dequantized(dtype) if isinstance(values, Grouped) else values.astype(dtype)
    scale = None if matrix.scale is None else all_gather(local_columns(plan, matrix.scale), also, 0)
    per_chunk = plan.padded.heads // plan.chips
    dim = matrix.chunk_width // per_chunk
    return values.reshape(latent_dim, -1, dim), None if scale is None else scale.reshape(-1, dim)


def _product(plan: Plan, equation: str, x: Array, w: Array) -> Array:
    """einsum in x's dtype, summed in float32."""
    exact = lax.Precision.HIGHEST if plan.act_dtype == "float32" else lax.Precision.DEFAULT
    return jnp.einsum(equation, x, w, precision=exact, preferred_element_type=jnp.float32).astype(x.dtype)


def _absorbed(plan: Plan, k_b: Matrix, queries: Array) -> Array:
    """Queries [batch, time, chunks, heads · head_dim] → [batch, time, chunks, heads · (latent + rotary)]."""
    heads = queries.reshape(*queries.shape[:2], -1, plan.model.head_dim)
    nope = plan.model.head_dim - plan.model.rotated_dim
    weights, scale = _heads_of(plan, k_b, queries.dtype)
    own = heads[..., :nope]
    if scale is not None:
        own = (own * scale).astype(own.dtype)
    own = _product(plan, "bthn,lhn->bthl", own, weights)
    return jnp.concatenate([own, heads[..., nope:]], axis=-1).reshape(*queries.shape[:3], -1)


def _with_values(plan: Plan, v_b: Matrix, out: Array) -> Array:
    """Weighted latent vectors [batch, time, chunks, heads · latent] → values [batch, time, chunks, width of o]."""
    weights, scale = _heads_of(plan, v_b, out.dtype)
    heads = out.reshape(*out.shape[:2], -1, weights.shape[0])
    values = _product(plan, "bthl,lhv->bthv", heads, weights)
    if scale is not None:
        values = (values * scale).astype(values.dtype)
    return values.reshape(*out.shape[:3], -1)


def _expanded(
    plan: Plan, w: Latent, latent: Cached, shared: Cached, dtype: Any, gathered: Axes
) -> tuple[Cached, Cached]:
    """Keys and values [batch, heads, limit, dim] of the heads of the chips along ``gathered``."""
    vectors, key = (_dequantized(each, dtype)[:, 0] for each in (latent, shared))
    found = []
    for matrix in (w.k_b, w.v_b):
        weights, scale = _heads_of(plan, matrix, dtype, gathered)
        made = _product(plan, "bsl,lhd->bhsd", vectors, weights)
        made = made if scale is None else (made * scale[:, None]).astype(dtype)
        found.append(constrain(plan, made, lambda cut: (cut.axes.sequence, cut.axes.head, (), ())))
    keys, values = found
    both = jnp.broadcast_to(key[:, None], (*keys.shape[:3], key.shape[-1]))
    return Cached(jnp.concatenate([keys, both], axis=-1), None), Cached(values, None)


def _dequantized(cached: Cached, dtype: Any) -> Array:
    wide = cached.values.astype(dtype)
    return wide if cached.scale is None else (wide * cached.scale[..., None]).astype(dtype)


def _by_head(plan: Plan, queries: Array) -> Array:
    """[batch, time, chunks, width] → [batch, time, heads, dim]."""
    q = queries.reshape(*queries.shape[:2], queries.shape[2] * plan.padded.heads // plan.chips, -1)
    return constrain(plan, q, lambda cut: (cut.axes.sequence, (), cut.axes.head, ()))


def _rotated(plan: Plan, q: Array, context: LayerContext) -> Array:
    """q: [batch, time, heads, dim], its last dimensions rotated."""
    kept = q.shape[-1] - plan.model.rotated_dim
    return jnp.concatenate([q[..., :kept], rotate(plan.model, q[..., kept:], context.angles)], axis=-1)
