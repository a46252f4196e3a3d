"""One layer, for every model and every layout.

The residual stream is x: [tokens.batch_axes, embed.residual_axes], tokens of a sequence together. (A dimension of its
own for time would be 1 in a decode step, and a TPU would lay arrays out in tiles of it.) A projection gathers x over
``ffn_axes``, multiplies, and reduce-scatters over ``embed_axes`` into columns; the projection back does the reverse, as
in Pope et al. 2022, section 3.2. Which axes those are, and thus which collectives remain, is the plan's.
"""

import math
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.attention import Where, attention
from engines.transformer.cache import Cache
from engines.transformer.fusion import input_parts
from engines.transformer.looped import Matmul, project
from engines.transformer.moves import gather, own, pin, total
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
        inputs = project_in(plan, w, "fused", first)
        ends = plan.q_width + 2 * plan.kv_width
        attended, cache = _attended(plan, inputs[..., :ends], cache, where)
        both = jnp.concatenate([attended, activate(plan, inputs[..., ends:])], axis=-1)
        return x + project_out(plan, w, "fused", both), cache
    attended, cache = _attended(plan, project_in(plan, w, "attn", first), cache, where)
    out = x + project_out(plan, w, "attn", attended)
    second = norm(plan, w, "ffn_norm", out if plan.model.block == "serial" else x)
    return out + project_out(plan, w, "ffn", activate(plan, project_in(plan, w, "ffn", second))), cache


def _attended(plan: Plan, qkv: Array, cache: Cache, where: Where) -> tuple[Array, Cache]:
    """qkv: [tokens, chunks, q | k | v] → what q attends to, [tokens, chunks, q], and the cache with k and v."""
    attended, cache = attention(plan, qkv.reshape(-1, where.time, *qkv.shape[1:]), cache, where)
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


def project_in(plan: Plan, w: LayerWeights, name: str, x: Array) -> Array:
    """x: [tokens, embed.residual_axes] → [tokens, chunks.column_axes, width], in a chunk the input tensors in turn."""
    width = sum(each for _, each in input_parts(plan)[name])
    x = pin(plan, x, "batch_axes", "embed_axes")
    out = project(plan, matmul_in(plan), x, w[f"{name}.in"])
    out = pin(plan, out.reshape(out.shape[0], -1, width), *COLUMNS)
    if f"{name}.in_scale" in w:
        out = (out * _own_columns(plan, w[f"{name}.in_scale"])).astype(x.dtype)
    if f"{name}.in_bias" in w:
        out = (out + _own_columns(plan, w[f"{name}.in_bias"])).astype(x.dtype)
    return out


def project_out(plan: Plan, w: LayerWeights, name: str, x: Array) -> Array:
    """x: [tokens, chunks.column_axes, width] → [tokens, embed.residual_axes]."""
    x = pin(plan, pin(plan, x, *COLUMNS).reshape(x.shape[0], -1), "batch_axes", "ffn_axes")
    out = project(plan, matmul_out(plan), x, w[f"{name}.out"])
    if f"{name}.out_scale" in w:
        out = (out * _own_embed(plan, w[f"{name}.out_scale"])).astype(x.dtype)
    if f"{name}.out_bias" in w:
        out = (out + _own_embed(plan, w[f"{name}.out_bias"])).astype(x.dtype)
    return pin(plan, out, *RESIDUAL)


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


def activate(plan: Plan, inputs: Array) -> Array:
    """silu(gate)·up of [..., gate | up], or GELU of all; float32, the exponential in base 2 as the hardware has it."""
    first = inputs[..., : plan.ffn_width].astype(jnp.float32)
    if plan.model.gated:
        up = inputs[..., plan.ffn_width :].astype(jnp.float32)
        hidden = first / (1 + jnp.exp2(-math.log2(math.e) * first)) * up
    else:
        hidden = jax.nn.gelu(first, approximate=plan.model.activation == "gelu_tanh")
    return hidden.astype(inputs.dtype)


def _own_embed(plan: Plan, vector: Array) -> Array:
    """This chip's embed.residual_axes of a vector that every chip holds."""
    return own(vector, plan.residual_axes, 0, plan.size(plan.residual_axes))


def _own_columns(plan: Plan, vector: Array) -> Array:
    """[chunks.all_axes, width] → [chunks.column_axes, width]."""
    return gather(vector, tuple(axis for axis in plan.all_axes if axis not in plan.column_axes), 0)
