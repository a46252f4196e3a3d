"""One layer, for every model and every layout.

The residual stream is x: [tokens.batch, E.residual], tokens of a sequence together. (A separate time dimension would be
1 in a decode step, and a TPU would pad it to a tile.)
"""

import jax
from jax import Array, lax

from engines.transformer.comm.collective_matmul import project_plain
from engines.transformer.layers.attention import LayerContext, attention
from engines.transformer.layers.experts import mixture
from engines.transformer.layers.kv_cache import Cache
from engines.transformer.layers.latent_attention import latent_attention
from engines.transformer.layers.mlp import activate, feed_forward, ring_of_weights
from engines.transformer.layers.norm import norm
from engines.transformer.layers.overlapped_block import overlapped_block
from engines.transformer.layers.projections import project_attention, project_in, project_out, reduced, unreduced
from engines.transformer.params.tree import Latent, LayerParameters, Norm
from engines.transformer.partition.constraint import constrain, read_columns
from engines.transformer.partition.overlap import Overlap
from engines.transformer.partition.plan import Plan


def layer(plan: Plan, w: LayerParameters, x: Array, cache: Cache, context: LayerContext) -> tuple[Array, Cache]:
    """x: [tokens.batch, E.residual] → the same, and the cache with this layer's k and v written."""
    context = context._replace(heads=w.heads)
    if plan.overlap is Overlap.OVERLAPPED_BLOCK:
        return overlapped_block(plan, w, x, cache, context)
    return (_fused if w.fused is not None else _halves)(plan, w, x, cache, context)


def _fused(plan: Plan, w: LayerParameters, x: Array, cache: Cache, context: LayerContext) -> tuple[Array, Cache]:
    """A parallel block whose halves read one norm: they share one input and one output projection."""
    assert w.fused is not None
    assert w.attn_norm is not None
    normed, outputs = norm(plan, w.attn_norm, x), w.fused.outputs
    if plan.circulates_ffn:
        # Attention's matrices are narrow: they are gathered without a ring.
        attended, cache = _attended(plan, w, project_attention(plan, w.fused.inputs, normed), cache, context)
        out = ring_of_weights(plan, w.fused, normed)
        out = out + unreduced(plan, outputs, attended, (0, plan.padded.q_width), project_plain)
        return x + reduced(plan, outputs, out, x.dtype), cache
    inputs = project_in(plan, w.fused.inputs, normed)
    count = len(inputs) - len(plan.model.ffn.inputs)
    attended, cache = _attended(plan, w, inputs[:count], cache, context)
    return x + project_out(plan, outputs, [attended, activate(plan, inputs[count:])]), cache


def _halves(plan: Plan, w: LayerParameters, x: Array, cache: Cache, context: LayerContext) -> tuple[Array, Cache]:
    """Attention, then the feed-forward, which reads attention's result in a serial block, x in a parallel one."""
    assert w.attn is not None
    columns = project_in(plan, w.attn.inputs, _normed(plan, w.attn_norm, x))
    attended, cache = _attended(plan, w, columns, cache, context, w.latent)
    out = x + _normed(plan, w.attn_post_norm, project_out(plan, w.attn.outputs, [attended]))
    second = _normed(plan, w.ffn_norm, out if plan.model.block == "serial" else x)
    if w.experts is not None:
        with jax.named_scope("experts"):
            mixed = mixture(plan, w.experts, second)
        return out + _normed(plan, w.ffn_post_norm, mixed), cache
    assert w.ffn is not None
    return out + _normed(plan, w.ffn_post_norm, feed_forward(plan, w.ffn, second)), cache


def _normed(plan: Plan, parameters: Norm | None, x: Array) -> Array:
    """The norm of x, or x itself where a model has no norm there."""
    return x if parameters is None else norm(plan, parameters, x)


def _attended(
    plan: Plan, w: LayerParameters, qkv: list[Array], cache: Cache, context: LayerContext, latent: Latent | None = None
) -> tuple[Array, Cache]:
    """[tokens, chunks, q | k | v], or q and k | v → attention output [tokens, chunks, width of o] and the new cache.

    Of latent attention the columns are those of :func:`engines.transformer.layers.latent_attention.latent_attention`.
    """
    if plan.model.attn_bias:
        # The bias is added while each token is a row: with a time dimension a TPU first pads each sequence to whole
        # tiles.
        qkv = lax.optimization_barrier(qkv)
    by_time = [each.reshape(-1, context.time, *each.shape[1:]) for each in qkv]
    with jax.named_scope("attention"):
        if latent is None:
            attended, cache = attention(plan, by_time, cache, context)
        else:
            attended, cache = latent_attention(plan, latent, by_time, cache, context)
    both = w.fused or w.attn
    assert both is not None
    return constrain(plan, attended.reshape(-1, *attended.shape[2:]), read_columns(both.outputs.parts)), cache
