"""The model on one device in float32, written for clarity: the reference for the partitioned version.

It shares no code with the partitioned version; it makes the same tensors from the same source, one layer at a time.
"""

from collections.abc import Collection
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from engines.core.layer_kind import LayerKind
from engines.core.model import Model
from engines.weights.random import Source, tensors, values

QUERIES: Final = 256
Weights = dict[str, Array]


def reference_logits(
    model: Model,
    tokens: NDArray[np.int32],
    positions: list[int],
    source: Source,
    length: int | None = None,
    layers: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Logits at ``positions`` of a forward pass over ``tokens`` [batch, time] → [positions, batch, vocab], float32.

    ``length`` is that of the longest text, which rotary positions may be stretched for; by default that of ``tokens``.
    ``layers`` [batch, time] are those that each token passes, all by default; from then on its stream stays as it is.
    """
    length = length or tokens.shape[1]
    x = embedded(model, read_first(model, source), tokens)
    for number, kind in enumerate(model.layer_kinds):
        passed = layer(model, kind, length, layer_weights(model, source, number), x)
        x = passed if layers is None else jnp.where(number < layers[..., None], passed, x)
    return np.asarray(output_logits(model, read_last(model, source), x[:, jnp.asarray(positions)])).transpose(1, 0, 2)


def read_first(model: Model, source: Source) -> Weights:
    """The tensors before the first layer, by name."""
    return _outer(model, source, ("embedding", "positions", "embedding_norm"))


def read_last(model: Model, source: Source) -> Weights:
    """The tensors after the last layer, by name."""
    return _outer(model, source, ("final_norm", "lm_head", "lm_head_bias", *["embedding"] * model.tied_embedding))


def _outer(model: Model, source: Source, names: Collection[str]) -> Weights:
    outer = {name: spec for name, spec in tensors(model).items() if name.split(".")[0] in names}
    return {name: jnp.asarray(values(spec, source)) for name, spec in outer.items()}


def layer_weights(model: Model, source: Source, number: int) -> Weights:
    """The tensors of a layer, by their names without its number."""
    prefix = f"layers.{number}."
    held = {name: spec for name, spec in tensors(model).items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): jnp.asarray(values(spec, source)) for name, spec in held.items()}


def embedded(model: Model, w: Weights, tokens: NDArray[np.int32] | Array) -> Array:
    """The residual stream before the first layer, [batch, time, E]."""
    x = w["embedding"][jnp.asarray(tokens)] * model.embedding_scale
    if model.position == "learned":
        x = x + w["positions"][: tokens.shape[1]]
    return _norm(model, w, "embedding_norm", x) if model.embedding_norm else x


@partial(jax.jit, static_argnums=0)
def output_logits(model: Model, w: Weights, x: Array) -> Array:
    """Logits […, V] of the residual stream after the last layer, […, E]."""
    with jax.default_matmul_precision("highest"):
        x = _norm(model, w, "final_norm", x)
        logits = x @ (w["embedding"].T if model.tied_embedding else w["lm_head"])
    logits = (logits + w["lm_head_bias"] if model.lm_head_bias else logits) * model.logit_scale
    return logits if model.logit_softcap is None else model.logit_softcap * jnp.tanh(logits / model.logit_softcap)


@partial(jax.jit, static_argnums=(0, 1, 2))
def layer(model: Model, kind: LayerKind, length: int, w: Weights, x: Array) -> Array:
    """The residual stream [batch, time, E] after one layer more."""

    def half(name: str, x: Array) -> Array:
        """What attention or the feed-forward adds to the stream, of which it reads x."""
        x = half_input(model, w, name, x)
        x = _attention(model, kind, length, w, x) if name == "attn" else _second_half(model, w, x)
        x = x if model.norm_position == "before" else _norm(model, w, f"{name}_post_norm", x)
        return model.residual_scale * x

    with jax.default_matmul_precision("highest"):
        if model.block == "parallel":
            return x + half("attn", x) + half("ffn", x)
        x = x + half("attn", x)
        return x + half("ffn", x)


def half_input(model: Model, w: Weights, name: str, x: Array) -> Array:
    """What attention (``attn``) or the feed-forward (``ffn``) reads of the residual stream x."""
    if model.norm_position == "after":
        return x
    return _norm(model, w, f"{name if model.norms_per_layer > 1 else 'attn'}_norm", x)


def _norm(model: Model, w: Weights, name: str, x: Array) -> Array:
    if model.norm == "layernorm":
        x = x - x.mean(axis=-1, keepdims=True)
    x = x / jnp.sqrt(jnp.square(x).mean(axis=-1, keepdims=True) + model.norm_epsilon) * w[f"{name}.scale"]
    return x + w[f"{name}.bias"] if model.norm_bias else x


def _latent_qkv(model: Model, kind: LayerKind, length: int, w: Weights, x: Array) -> tuple[Array, Array, Array]:
    """q, k and v [batch, time, heads, dim] of latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""
    latent, plain = model.kv_latent_dim, model.head_dim - model.rotated_dim

    def normed(each: Array, scale: Array) -> Array:
        return each / jnp.sqrt(jnp.square(each).mean(axis=-1, keepdims=True) + model.norm_epsilon) * scale

    if model.q_latent_dim is None:
        q = jnp.einsum("bte,ehd->bthd", x, w["q"])
    else:
        q = jnp.einsum("btl,lhd->bthd", normed(x @ w["q_a"], w["q_a_norm.scale"]), w["q_b"])
    down = x @ w["kv_a"]
    vectors = normed(down[..., :latent], w["kv_a_norm.scale"])
    k, v = (jnp.einsum("btl,lhd->bthd", vectors, w[name]) for name in ("k_b", "v_b"))
    shared = _rotate(model, kind, length, down[:, :, None, latent:])
    shared = jnp.broadcast_to(shared, (*k.shape[:3], model.rotated_dim))
    q = jnp.concatenate([q[..., :plain], _rotate(model, kind, length, q[..., plain:])], axis=-1)
    return q, jnp.concatenate([k, shared], axis=-1), v


def _attention(model: Model, kind: LayerKind, length: int, w: Weights, x: Array) -> Array:
    out = jnp.einsum("bqhd,hde->bqe", attended_values(model, kind, length, w, x), w["o"])
    return out + w["o_bias"] if model.has_output_bias else out


def attended_values(model: Model, kind: LayerKind, length: int, w: Weights, x: Array) -> Array:
    """What each query head takes of the values, [batch, time, heads, value dim]: before the output matrix."""
    time = x.shape[1]
    if model.kv_latent_dim is not None:
        q, k, v = _latent_qkv(model, kind, length, w, x)
    else:
        q, k, v = (jnp.einsum("bte,ehd->bthd", x, w[name]) for name in "qkv")
    if model.attn_bias:
        q, k, v = q + w["q_bias"], k + w["k_bias"], v + w["v_bias"]
    if model.qk_norm:
        q, k = (
            each / jnp.sqrt(jnp.square(each).mean(axis=-1, keepdims=True) + model.norm_epsilon) * w[f"{name}.scale"]
            for name, each in (("q_norm", q), ("k_norm", k))
        )
    if model.position == "rotary" and model.kv_latent_dim is None:
        q, k = _rotate(model, kind, length, q), _rotate(model, kind, length, k)
    group = model.num_heads // model.num_kv_heads
    k, v = jnp.repeat(k, group, axis=2), jnp.repeat(v, group, axis=2)
    scale = model.head_dim**-0.5 if model.attn_scale is None else model.attn_scale
    sinks = w["sinks"][None, :, None] if model.attention_sinks else None

    def attended(at: Array) -> Array:
        scores = jnp.einsum("bhd,bkhd->bhk", q[:, at], k) * scale
        if model.attn_softcap is not None:
            scores = model.attn_softcap * jnp.tanh(scores / model.attn_softcap)
        if model.position == "alibi":
            scores = scores - _alibi(model.num_heads)[:, None] * (at - jnp.arange(time))
        scores = jnp.where(_seen(model, kind, at, jnp.arange(time)), scores, -jnp.inf)
        if sinks is not None:  # one more key, of no value
            scores = jnp.concatenate([scores, jnp.broadcast_to(sinks, (*scores.shape[:2], 1))], axis=-1)
        return jnp.einsum("bhk,bkhd->bhd", jax.nn.softmax(scores, axis=-1)[..., :time], v)

    # A block of queries at a time, so that the scores of a long prompt fit in memory.
    taken: Array = lax.map(attended, jnp.arange(time), batch_size=QUERIES).transpose(1, 0, 2, 3)
    return taken


def _seen(model: Model, kind: LayerKind, at: Array, keys: Array) -> Array:
    """Which keys the query at a position sees."""
    seen = keys <= at
    if kind.window is None:
        return seen
    if model.window_kind == "chunked":
        return seen & (keys // kind.window == at // kind.window)
    return seen & (at - keys < kind.window)


def _alibi(heads: int) -> NDArray[np.float32]:
    """Slopes (Press et al. 2022): a geometric series to 1/256; between those of the next smaller power of 2 heads."""
    whole = 1 << (heads.bit_length() - 1)
    series = [np.exp2(-8 / whole) ** each for each in range(1, whole + 1)]
    between = [np.exp2(-4 / whole) ** each for each in range(1, 2 * whole, 2)]
    return np.asarray([*series, *between][:heads], np.float32)


def _rotate(model: Model, kind: LayerKind, length: int, x: Array) -> Array:
    """Rotary positions (Su et al. 2021) on x [batch, time, heads, dim]: on pairs (2i, 2i+1), or (i, i + half)."""
    dim, rotary = model.rotated_dim, model.rotary(kind, length)
    angles = np.outer(np.arange(x.shape[1]), rotary.frequencies)[None, :, None, :]
    sin, cos = (rotary.scale * each(jnp.asarray(angles, jnp.float32)) for each in (jnp.sin, jnp.cos))
    turned, rest = x[..., :dim], x[..., dim:]
    if model.rotary_interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(turned.shape)
    else:
        a, b = turned[..., : dim // 2], turned[..., dim // 2 :]
        turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    rotated: Array = jnp.concatenate([turned, rest], axis=-1)
    return rotated


def _second_half(model: Model, w: Weights, x: Array) -> Array:
    return _experts(model, w, x) if "router" in w else _feed_forward(model, w, x)


def _experts(model: Model, w: Weights, x: Array) -> Array:
    """Every expert's feed-forward of every token, times the weight that the router gives it, 0 where it is not chosen.

    Experts that are not chosen are told from those that are by their scores alone, without sorting tokens.
    """
    experts = model.experts
    assert experts is not None
    weights = _router_weights(model, w, x)

    def add(total: Array, number: Array) -> tuple[Array, None]:
        one = {name.removeprefix("experts."): each[number] for name, each in w.items() if name.startswith("experts.")}
        return total + weights[..., number, None] * _feed_forward(model, one, x), None

    out, _ = lax.scan(add, jnp.zeros_like(x), jnp.arange(experts.count))
    if experts.shared is None:
        return out
    shared = _feed_forward(model, {name.removeprefix("shared."): each for name, each in w.items()}, x)
    return out + (shared * jax.nn.sigmoid(x @ w["shared_gate"]) if model.shared_expert_gate else shared)


def _router_weights(model: Model, w: Weights, x: Array) -> Array:
    """[batch, time, experts]: the weight of each expert's result, 0 of those that a token does not go to."""
    logits = x @ w["router"] + (w["router_bias"] if model.router_bias else 0)
    score = logits
    if model.router_score == "softmax":
        score = jax.nn.softmax(logits)
    elif model.router_score == "sigmoid":
        score = jax.nn.sigmoid(logits)
    wanted = score + (w["router_correction"] if model.router_correction else 0)
    if model.router_groups > 1:
        groups = wanted.reshape(*wanted.shape[:-1], model.router_groups, -1)
        strength = jnp.sort(groups, axis=-1)[..., -model.router_group_best :].sum(-1)
        kept = _among_highest(strength, model.router_groups_kept)
        wanted = jnp.where(kept[..., None], groups, -jnp.inf).reshape(wanted.shape)
    assert model.experts_per_token is not None
    chosen = _among_highest(wanted, model.experts_per_token)
    if model.router_score == "topk_softmax":
        return jax.nn.softmax(jnp.where(chosen, score, -jnp.inf), axis=-1) * model.router_scale
    weights = jnp.where(chosen, score, 0)
    if model.router_normalized:
        weights = weights / (weights.sum(-1, keepdims=True) + 1e-20)
    return weights * model.router_scale


def _among_highest(x: Array, count: int) -> Array:
    """Whether each of the last dimension is one of the ``count`` highest, the first of equal ones."""
    ahead = (x[..., None, :] > x[..., :, None]) | (
        (x[..., None, :] == x[..., :, None]) & jnp.tri(x.shape[-1], k=-1, dtype=bool)
    )
    return ahead.sum(-1) < count


def _feed_forward(model: Model, w: Weights, x: Array) -> Array:
    out = hidden_columns(model, w, x) @ w["wo"]
    return out + w["wo_bias"] if model.ffn_bias else out


def hidden_columns(model: Model, w: Weights, x: Array) -> Array:
    """What a feed-forward's output matrix reads, [batch, time, columns]."""
    inputs: list[Any] = [x @ w[name] for name in model.ffn.inputs]
    if model.ffn_bias:
        inputs = [each + w[f"{name}_bias"] for each, name in zip(inputs, model.ffn.inputs, strict=True)]
    hidden: Array = _activated(model.activation, inputs)
    return hidden


def _activated(activation: str, inputs: list[Any]) -> Any:
    first = inputs[0]
    if activation == "swiglu":
        return jax.nn.silu(first) * inputs[1]
    if activation == "geglu":
        return jax.nn.gelu(first, approximate=True) * inputs[1]
    if activation == "swiglu_clamped":
        gate, up = jnp.minimum(first, 7.0), jnp.clip(inputs[1], -7.0, 7.0)
        return gate * jax.nn.sigmoid(1.702 * gate) * (up + 1)
    if activation == "relu":
        return jax.nn.relu(first)
    return jax.nn.gelu(first, approximate=activation == "gelu_tanh")
