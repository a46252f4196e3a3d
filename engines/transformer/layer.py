"""One layer, for every model and every layout.

The residual stream is x: [tokens.batch_axes, embed.residual_axes], tokens of a sequence together. (A dimension of its
own for time would be 1 in a decode step, and a TPU would lay arrays out in tiles of it.) A projection gathers x over
``ffn_axes``, multiplies, and reduce-scatters over ``embed_axes`` into columns; the projection back does the reverse, as
in Pope et al. 2022, section 3.2. Which axes those are, and thus which collectives remain, is the plan's.
"""

import math
import operator
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.attention import Where, attention
from engines.transformer.cache import Cache
from engines.transformer.circulating import Block, circulates, hidden_blocks, of_block, output
from engines.transformer.fusion import input_parts, input_widths, output_parts
from engines.transformer.looped import Matmul, project
from engines.transformer.moves import gather, own, pin, scatter, total
from engines.transformer.plan import Plan

Weights = dict[str, Array]
LayerWeights = dict[str, Any]
"""One layer's arrays, its matrices as :class:`engines.transformer.looped.Stored`."""
RESIDUAL: Final = ("batch_axes", "residual_axes")
"""How the residual stream is split, for :func:`pin`."""
COLUMNS: Final = ("batch_axes", "column_axes", "")
"""How [tokens, chunks, width] between two projections is split."""


def layer(plan: Plan, w: LayerWeights, x: Array, cache: Cache, where: Where) -> tuple[Array, Cache]:
    """x: [tokens.batch_axes, embed.residual_axes] → the same, and the cache with this layer's k and v written.

    ``w`` holds one layer's parameters, by their names without ``layer.``.
    """
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
        return out + _reduced(plan, w, "ffn", _feed_forward(plan, w, "ffn", second), x.dtype), cache
    return out + project_out(plan, w, "ffn", [activate(plan, project_in(plan, w, "ffn", second))]), cache


def _attended(plan: Plan, qkv: list[Array], cache: Cache, where: Where) -> tuple[Array, Cache]:
    """[tokens, chunks, q | k | v], or q and k | v → what q attends to, [tokens, chunks, q]; the cache with k and v."""
    if plan.model.attn_bias:
        # Added where every token is a row: with a dimension for time a TPU pads each sequence to whole tiles first.
        qkv = lax.optimization_barrier(qkv)
    by_time = [each.reshape(-1, where.time, *each.shape[1:]) for each in qkv]
    attended, cache = attention(plan, by_time, cache, where)
    return pin(plan, attended.reshape(-1, *attended.shape[2:]), *COLUMNS), cache


def norm(plan: Plan, w: LayerWeights, name: str, x: Array) -> Array:
    """Layernorm or RMSnorm of x: [tokens, embed.residual_axes], its statistics summed over the chips.

    Normalised before it is gathered: every chip then does its share of the work, and the sums are two numbers a token.
    """
    model, axes = plan.model, plan.residual_axes
    wide = x.astype(jnp.float32)
    centred = model.norm == "layernorm"
    sums = [jnp.square(wide).sum(-1), wide.sum(-1)] if centred else [jnp.square(wide).sum(-1)]
    means = total(jnp.stack(sums), axes) / model.d_model
    variance = means[0] - jnp.square(means[1]) if centred else means[0]
    wide = wide - means[1][..., None] if centred else wide
    wide = wide * lax.rsqrt(variance + model.norm_epsilon)[..., None] * _own_embed(plan, w[f"{name}.scale"])
    if model.norm_bias:
        wide = wide + _own_embed(plan, w[f"{name}.bias"])
    return wide.astype(x.dtype)


def project_in(plan: Plan, w: LayerWeights, name: str, x: Array, first: int | None = None) -> list[Array]:
    """x: [tokens, embed.residual_axes] → what ``name`` is cut into (:func:`input_widths`), or the ``first`` so many.

    Each is [tokens, chunks.column_axes, width].
    """
    widths = input_widths(plan, name)
    cuts = list(pairwise(accumulate(widths, initial=0)))
    x, stored = pin(plan, x, "batch_axes", "embed_axes"), w[f"{name}.in"]
    if plan.apart:
        cuts = cuts[:first]
        parts = [stored.of_chunks(1, sum(widths), *cut) for cut in cuts]
        outs = [project(plan, matmul_in(plan), x, part).reshape(len(x), plan.local_chunks, -1) for part in parts]
    else:
        out = project(plan, matmul_in(plan), x, stored)
        outs = [pin(plan, out.reshape(out.shape[0], -1, sum(widths)), *COLUMNS)]
    for vector, combine in _vectors(w, name):
        whole = _own_columns(plan, w[vector])
        of_each = [whole[:, start:stop] for start, stop in cuts] if plan.apart else [whole]
        outs = [combine(out, each).astype(x.dtype) for out, each in zip(outs, of_each, strict=True)]
    return outs if plan.apart else [outs[0][..., start:stop] for start, stop in cuts]


def project_out(plan: Plan, w: LayerWeights, name: str, parts: list[Array]) -> Array:
    """Parts of a chunk's columns in turn, [tokens, chunks.column_axes, width] each → [tokens, embed.residual_axes]."""
    if plan.apart:
        widths = [part.shape[2] for part in parts]
        cuts = pairwise(accumulate(widths, initial=0))
        terms = [_term(plan, w, name, part, cut) for part, cut in zip(parts, cuts, strict=True)]
        return _reduced(plan, w, name, sum(terms[1:], terms[0]), parts[0].dtype)
    x = pin(plan, parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1), *COLUMNS)
    x = pin(plan, x.reshape(x.shape[0], -1), "batch_axes", "ffn_axes")
    return _scaled(plan, w, name, project(plan, matmul_out(plan), x, w[f"{name}.out"]))


def _circulated(
    plan: Plan, w: LayerWeights, x: Array, normed: Array, cache: Cache, where: Where
) -> tuple[Array, Cache]:
    """A fused layer: the feed-forward's weights come around, attention's narrow ones are gathered."""
    narrow = replace(plan, collectives="plain")
    attended, cache = _attended(plan, project_in(narrow, w, "fused", normed, first=2), cache, where)
    out = _feed_forward(plan, w, "fused", normed) + _term(narrow, w, "fused", attended, (0, plan.q_width))
    return x + _reduced(plan, w, "fused", out, x.dtype), cache


def _feed_forward(plan: Plan, w: LayerWeights, name: str, x: Array) -> Array:
    """x: [tokens, embed.residual_axes] → [tokens, E], float32, unreduced over ``ffn_axes``."""
    widths = input_widths(plan, name)
    cuts = list(pairwise(accumulate(widths, initial=0)))[1 - plan.model.ffn_matrices :]
    vectors = [(_own_columns(plan, w[vector]), combine) for vector, combine in _vectors(w, name)]

    def make(products: list[Array], block: Block, width: int) -> Array:
        for whole, combine in vectors:
            own_parts = [of_block(plan, whole[:, start:stop], block, width) for start, stop in cuts]
            products = [combine(each, part).astype(x.dtype) for each, part in zip(products, own_parts, strict=True)]
        return activate(plan, products)

    inward = [w[f"{name}.in"].of_chunks(1, sum(widths), *cut).whole() for cut in cuts]
    blocks = hidden_blocks(plan, lax.optimization_barrier(gather(x, plan.ffn_axes, 1)), inward, make)
    outward = sum(width for _, width in output_parts(plan)[name])
    return output(plan, blocks, w[f"{name}.out"].of_chunks(0, outward, outward - plan.ffn_width, outward).whole())


def _term(plan: Plan, w: LayerWeights, name: str, x: Array, cut: tuple[int, int]) -> Array:
    """x: [tokens, chunks, width], of every chunk the columns ``cut`` → [tokens, E], float32, to be reduced."""
    outward = sum(width for _, width in output_parts(plan)[name])
    part = w[f"{name}.out"].of_chunks(0, outward, *cut)
    return project(plan, matmul_out(plan)._replace(scattered=()), x.reshape(len(x), -1), part, jnp.float32)


def _reduced(plan: Plan, w: LayerWeights, name: str, x: Array, dtype: Any) -> Array:
    """x: [tokens, E] {unreduced over ffn_axes} → [tokens, embed.residual_axes] in ``dtype``."""
    return _scaled(plan, w, name, scatter(x.astype(dtype), matmul_out(plan).scattered, 1))


def _scaled(plan: Plan, w: LayerWeights, name: str, x: Array) -> Array:
    """A layer's output times its channels' scales, plus its bias, where it has them."""
    dtype = x.dtype
    if f"{name}.out_scale" in w:
        x = (x * _own_embed(plan, w[f"{name}.out_scale"])).astype(dtype)
    if f"{name}.out_bias" in w:
        x = (x + _own_embed(plan, w[f"{name}.out_bias"])).astype(dtype)
    return pin(plan, x, *RESIDUAL)


def _vectors(w: LayerWeights, name: str) -> list[tuple[str, Any]]:
    """Scales and biases of input columns that there are, and how each is applied."""
    known = (f"{name}.in_scale", operator.mul), (f"{name}.in_bias", operator.add)
    return [(vector, combine) for vector, combine in known if vector in w]


def matmul_in(plan: Plan) -> Matmul:
    """[tokens, E] · [E, chunks, width], weights as [E.stored_embed_axes, columns.stored_ffn_axes]."""
    rows, columns = plan.gathered_axes
    return Matmul(plan.ffn_axes, plan.embed_axes, rows, columns)


def matmul_out(plan: Plan) -> Matmul:
    """[tokens, chunks, width] · [chunks, width, E], weights as [columns.stored_ffn_axes, E.stored…]."""
    rows, columns = plan.gathered_axes
    return Matmul(plan.embed_axes, plan.ffn_axes, columns, rows)


def matmuls(plan: Plan) -> dict[str, Matmul]:
    """Parameter → the product that it takes part in, for the matrices of a layer."""
    both = {"in": matmul_in(plan), "out": matmul_out(plan)}
    return {f"layer.{name}.{side}": each for name in input_parts(plan) for side, each in both.items()}


def activate(plan: Plan, inputs: list[Array]) -> Array:
    """silu(gate)·up, or GELU of the one input; in float32, the exponential in base 2 as the hardware has it."""
    first = inputs[0].astype(jnp.float32)
    if plan.model.gated:
        hidden = first / (1 + jnp.exp2(-math.log2(math.e) * first)) * inputs[1].astype(jnp.float32)
    else:
        hidden = jax.nn.gelu(first, approximate=plan.model.activation == "gelu_tanh")
    return hidden.astype(inputs[0].dtype)


def _own_embed(plan: Plan, vector: Array) -> Array:
    """This chip's embed.residual_axes of a vector that every chip holds."""
    return own(vector, plan.residual_axes, 0, plan.size(plan.residual_axes))


def _own_columns(plan: Plan, vector: Array) -> Array:
    """[chunks.all_axes, width] → [chunks.column_axes, width]."""
    return gather(vector, tuple(axis for axis in plan.all_axes if axis not in plan.column_axes), 0)
