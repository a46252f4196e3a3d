"""The norm and the projections of a layer: what is multiplied with its matrices, and what their results are scaled by.

A projection gathers x over ``ffn_axes``, multiplies, and reduce-scatters over ``embed_axes`` into columns; the
projection back does the reverse, as in Pope et al. 2022, section 3.2. Which axes those are, and thus which collectives
remain, is the plan's.
"""

import math
import operator
from itertools import accumulate, pairwise
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collective_matmul import Matmul, project
from engines.transformer.comm.collectives import all_gather, all_reduce, constrain, local_shard, reduce_scatter
from engines.transformer.params.fusion import input_parts, input_widths, output_parts
from engines.transformer.partition.plan import Axes, Plan

Weights = dict[str, Array]
LayerWeights = dict[str, Any]
"""One layer's arrays, its matrices as :class:`engines.transformer.comm.collective_matmul.Stored`."""
RESIDUAL: Final = ("batch_axes", "residual_axes")
"""How the residual stream is split, for :func:`constrain`."""
COLUMNS: Final = ("batch_axes", "column_axes", "")
"""How [tokens, chunks, width] between two projections is split."""


def norm(plan: Plan, w: LayerWeights, name: str, x: Array, axes: Axes | None = None) -> Array:
    """Layernorm or RMSnorm of x: [tokens, E.axes], its statistics summed over the chips of ``axes``.

    Normalised before it is gathered, over ``residual_axes`` unless ``axes`` says otherwise: every chip then does its
    share of the work, and the sums are two numbers a token.
    """
    model, axes = plan.model, plan.residual_axes if axes is None else axes
    shards = plan.size(axes)
    wide = x.astype(jnp.float32)
    centred = model.norm == "layernorm"
    sums = [jnp.square(wide).sum(-1), wide.sum(-1)] if centred else [jnp.square(wide).sum(-1)]
    means = all_reduce(jnp.stack(sums), axes) / model.d_model
    variance = means[0] - jnp.square(means[1]) if centred else means[0]
    wide = wide - means[1][..., None] if centred else wide
    wide = wide * lax.rsqrt(variance + model.norm_epsilon)[..., None] * local_shard(w[f"{name}.scale"], axes, 0, shards)
    if model.norm_bias:
        wide = wide + local_shard(w[f"{name}.bias"], axes, 0, shards)
    return wide.astype(x.dtype)


def project_in(plan: Plan, w: LayerWeights, name: str, x: Array, first: int | None = None) -> list[Array]:
    """x: [tokens, embed.residual_axes] → what ``name`` is cut into (:func:`input_widths`), or the ``first`` so many.

    Each is [tokens, chunks.column_axes, width].
    """
    widths = input_widths(plan, name)
    cuts = list(pairwise(accumulate(widths, initial=0)))
    x, stored = constrain(plan, x, "batch_axes", "embed_axes"), w[f"{name}.in"]
    if plan.apart:
        cuts = cuts[:first]
        parts = [stored.of_chunks(1, sum(widths), *cut) for cut in cuts]
        outs = [project(plan, matmul_in(plan), x, part).reshape(len(x), plan.local_chunks, -1) for part in parts]
    else:
        out = project(plan, matmul_in(plan), x, stored)
        outs = [constrain(plan, out.reshape(out.shape[0], -1, sum(widths)), *COLUMNS)]
    for vector, combine in column_vectors(w, name):
        whole = own_columns(plan, w[vector])
        of_each = [whole[:, start:stop] for start, stop in cuts] if plan.apart else [whole]
        outs = [combine(out, each).astype(x.dtype) for out, each in zip(outs, of_each, strict=True)]
    return outs if plan.apart else [outs[0][..., start:stop] for start, stop in cuts]


def project_out(plan: Plan, w: LayerWeights, name: str, parts: list[Array]) -> Array:
    """Parts of a chunk's columns in turn, [tokens, chunks.column_axes, width] each → [tokens, embed.residual_axes]."""
    if plan.apart:
        widths = [part.shape[2] for part in parts]
        cuts = pairwise(accumulate(widths, initial=0))
        terms = [term(plan, w, name, part, cut) for part, cut in zip(parts, cuts, strict=True)]
        return reduced(plan, w, name, sum(terms[1:], terms[0]), parts[0].dtype)
    x = constrain(plan, parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1), *COLUMNS)
    x = constrain(plan, x.reshape(x.shape[0], -1), "batch_axes", "ffn_axes")
    return scaled(plan, w, name, project(plan, matmul_out(plan), x, w[f"{name}.out"]))


def term(plan: Plan, w: LayerWeights, name: str, x: Array, cut: tuple[int, int]) -> Array:
    """x: [tokens, chunks, width], of every chunk the columns ``cut`` → [tokens, E], float32, to be reduced."""
    outward = sum(width for _, width in output_parts(plan)[name])
    part = w[f"{name}.out"].of_chunks(0, outward, *cut)
    return project(plan, matmul_out(plan)._replace(scattered=()), x.reshape(len(x), -1), part, jnp.float32)


def reduced(plan: Plan, w: LayerWeights, name: str, x: Array, dtype: Any) -> Array:
    """x: [tokens, E] {unreduced over ffn_axes} → [tokens, embed.residual_axes] in ``dtype``."""
    return scaled(plan, w, name, reduce_scatter(x.astype(dtype), matmul_out(plan).scattered, 1))


def scaled(plan: Plan, w: LayerWeights, name: str, x: Array) -> Array:
    """A layer's output times its channels' scales, plus its bias, where it has them."""
    dtype = x.dtype
    if f"{name}.out_scale" in w:
        x = (x * own_embed(plan, w[f"{name}.out_scale"])).astype(dtype)
    if f"{name}.out_bias" in w:
        x = (x + own_embed(plan, w[f"{name}.out_bias"])).astype(dtype)
    return constrain(plan, x, *RESIDUAL)


def column_vectors(w: LayerWeights, name: str) -> list[tuple[str, Any]]:
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
    parts = {"in": input_parts(plan), "out": output_parts(plan)}
    return {f"layer.{name}.{side}": each for side, each in both.items() for name in parts[side]}


def activate(plan: Plan, inputs: list[Array]) -> Array:
    """silu(gate)·up, or GELU of the one input; in float32, the exponential in base 2 as the hardware has it."""
    first = inputs[0].astype(jnp.float32)
    if plan.model.gated:
        hidden = first / (1 + jnp.exp2(-math.log2(math.e) * first)) * inputs[1].astype(jnp.float32)
    else:
        hidden = jax.nn.gelu(first, approximate=plan.model.activation == "gelu_tanh")
    return hidden.astype(inputs[0].dtype)


def own_embed(plan: Plan, vector: Array) -> Array:
    """This chip's embed.residual_axes of a vector that every chip holds."""
    return local_shard(vector, plan.residual_axes, 0, plan.size(plan.residual_axes))


def own_columns(plan: Plan, vector: Array) -> Array:
    """[chunks.all_axes, width] → [chunks.column_axes, width]."""
    return all_gather(vector, tuple(axis for axis in plan.all_axes if axis not in plan.column_axes), 0)
