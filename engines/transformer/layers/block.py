"""One layer, for every model and every layout.

The residual stream is x: [tokens.batch_axes, embed.residual_axes], tokens of a sequence together. (A dimension of its
own for time would be 1 in a decode step, and a TPU would lay arrays out in tiles of it.)
"""

from dataclasses import replace
from itertools import accumulate, pairwise

from jax import Array, lax

from engines.transformer.comm.collectives import all_gather, constrain
from engines.transformer.layers.attention import Where, attention
from engines.transformer.layers.kv_cache import Cache
from engines.transformer.layers.mlp import Block, circulates, hidden_blocks, of_block, output
from engines.transformer.layers.overlapped_block import interleaved
from engines.transformer.layers.projections import (
    COLUMNS,
    LayerWeights,
    activate,
    column_vectors,
    norm,
    own_columns,
    project_in,
    project_out,
    reduced,
    term,
)
from engines.transformer.params.fusion import input_widths, output_parts
from engines.transformer.partition.plan import Plan


def layer(plan: Plan, w: LayerWeights, x: Array, cache: Cache, where: Where) -> tuple[Array, Cache]:
    """x: [tokens.batch_axes, embed.residual_axes] → the same, and the cache with this layer's k and v written.

    ``w`` holds one layer's parameters, by their names without ``layer.``.
    """
    if plan.interleaves:
        return interleaved(plan, w, x, cache, where)
    first = norm(plan, w, "attn_norm", x)
    if plan.fused:
        if circulates(plan):
            return _circulated(plan, w, x, first, cache, where)
        inputs = project_in(plan, w, "fused", first)
        count = len(inputs) - plan.model.ffn_matrices + 1
        attended, cache = _attended(plan, inputs[:count], cache, where)
        return x + project_out(plan, w, "fused", [attended, activate(plan, inputs[count:])]), cache
    attended, cache = _attended(plan, project_in(plan, w, "attn", first), cache, where)
    out = x + project_out(plan, w, "attn", [attended])
    second = norm(plan, w, "ffn_norm", out if plan.model.block == "serial" else x)
    if circulates(plan):
        return out + reduced(plan, w, "ffn", _feed_forward(plan, w, "ffn", second), x.dtype), cache
    return out + project_out(plan, w, "ffn", [activate(plan, project_in(plan, w, "ffn", second))]), cache


def _attended(plan: Plan, qkv: list[Array], cache: Cache, where: Where) -> tuple[Array, Cache]:
    """[tokens, chunks, q | k | v], or q and k | v → what q attends to, [tokens, chunks, q]; the cache with k and v."""
    if plan.model.attn_bias:
        # Added where every token is a row: with a dimension for time a TPU pads each sequence to whole tiles first.
        qkv = lax.optimization_barrier(qkv)
    by_time = [each.reshape(-1, where.time, *each.shape[1:]) for each in qkv]
    attended, cache = attention(plan, by_time, cache, where)
    return constrain(plan, attended.reshape(-1, *attended.shape[2:]), *COLUMNS), cache


def _circulated(
    plan: Plan, w: LayerWeights, x: Array, normed: Array, cache: Cache, where: Where
) -> tuple[Array, Cache]:
    """A fused layer: the feed-forward's weights come around, attention's narrow ones are gathered."""
    narrow = replace(plan, collectives="plain")
    attended, cache = _attended(plan, project_in(narrow, w, "fused", normed, first=2), cache, where)
    out = _feed_forward(plan, w, "fused", normed) + term(narrow, w, "fused", attended, (0, plan.q_width))
    return x + reduced(plan, w, "fused", out, x.dtype), cache


def _feed_forward(plan: Plan, w: LayerWeights, name: str, x: Array) -> Array:
    """x: [tokens, embed.residual_axes] → [tokens, E], float32, unreduced over ``ffn_axes``."""
    widths = input_widths(plan, name)
    cuts = list(pairwise(accumulate(widths, initial=0)))[1 - plan.model.ffn_matrices :]
    vectors = [(own_columns(plan, w[vector]), combine) for vector, combine in column_vectors(w, name)]

    def make(products: list[Array], block: Block, width: int) -> Array:
        for whole, combine in vectors:
            own_parts = [of_block(plan, whole[:, start:stop], block, width) for start, stop in cuts]
            products = [combine(each, part).astype(x.dtype) for each, part in zip(products, own_parts, strict=True)]
        return activate(plan, products)

    inward = [w[f"{name}.in"].of_chunks(1, sum(widths), *cut).whole() for cut in cuts]
    blocks = hidden_blocks(plan, lax.optimization_barrier(all_gather(x, plan.ffn_axes, 1)), inward, make)
    outward = sum(width for _, width in output_parts(plan)[name])
    return output(plan, blocks, w[f"{name}.out"].of_chunks(0, outward, outward - plan.ffn_width, outward).whole())
