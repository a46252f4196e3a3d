"""The model on one device in float32, without cache, shards or fused matrices: the reference for verification.

It shares no code with the timed model; it loads the same tensors from the same source, one layer at a time.
"""

import math

import torch
from torch import Tensor

from engines.core.feed_forward import FeedForward
from engines.core.layer_kind import LayerKind
from engines.core.model import Model
from engines.torch.load_tensor import load_tensor
from engines.torch.reference_attention import attention
from engines.torch.reference_experts import experts
from engines.weights.random import Source, tensors

Weights = dict[str, Tensor]


@torch.inference_mode()
def reference_logits(
    model: Model, tokens: Tensor, positions: list[int], source: Source, length: int | None = None
) -> Tensor:
    """Logits at ``positions`` of a forward pass over ``tokens`` [batch, time] → [positions, batch, vocab].

    ``length`` is that of the whole text, where it goes on after ``tokens``: scaled rotary positions may depend on it.
    """
    device = tokens.device
    x = embedded(model, outer_weights(model, source, device), tokens)
    for number, kind in enumerate(model.layer_kinds):
        x = layer(model, kind, layer_weights(model, source, number, device), x, length or tokens.shape[1])
    return _output(model, outer_weights(model, source, device), x[:, positions]).transpose(0, 1)


def outer_weights(model: Model, source: Source, device: torch.device) -> Weights:
    """The tensors of no layer, by name."""
    return {
        name: load_tensor(spec, source, [slice(None)] * len(spec.shape), device)
        for name, spec in tensors(model).items()
        if not name.startswith("layers.")
    }


def layer_weights(model: Model, source: Source, number: int, device: torch.device) -> Weights:
    """The tensors of a layer, by their names without its number."""
    prefix = f"layers.{number}."
    return {
        name.removeprefix(prefix): load_tensor(spec, source, [slice(None)] * len(spec.shape), device)
        for name, spec in tensors(model).items()
        if name.startswith(prefix)
    }


def embedded(model: Model, outer: Weights, tokens: Tensor) -> Tensor:
    """The residual stream before the first layer, [batch, time, embed]."""
    x = outer["embedding"][tokens] * model.embedding_scale
    if model.position == "learned":
        x = x + outer["positions"][: tokens.shape[1]]
    return norm(model, outer, "embedding_norm", x) if model.embedding_norm else x


def _output(model: Model, outer: Weights, x: Tensor) -> Tensor:
    """Logits of the residual stream after the last layer."""
    x = norm(model, outer, "final_norm", x)
    logits = x @ (outer["embedding"].T if model.tied_embedding else outer["lm_head"])
    if model.lm_head_bias:
        logits = logits + outer["lm_head_bias"]
    logits = logits * model.logit_scale
    if model.logit_softcap is not None:
        logits = torch.tanh(logits / model.logit_softcap) * model.logit_softcap
    return logits


def norm(model: Model, w: Weights, name: str, x: Tensor) -> Tensor:
    """The norm of the last dimension under ``name``."""
    if model.norm == "layernorm":
        x = x - x.mean(dim=-1, keepdim=True)
    x = x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + model.norm_epsilon) * w[f"{name}.scale"]
    return x + w[f"{name}.bias"] if model.norm_bias else x


def layer(model: Model, kind: LayerKind, w: Weights, x: Tensor, length: int) -> Tensor:
    """The residual stream after one layer more, of texts of up to ``length``."""
    if model.block == "parallel":
        first, second = (half_input(model, w, half, x) for half in ("attn", "ffn"))
        return x + model.residual_scale * (
            attention(model, kind, w, first, length) + _feed_forward(model, kind, w, second)
        )
    for half in ("attn", "ffn"):
        y = half_input(model, w, half, x)
        y = attention(model, kind, w, y, length) if half == "attn" else _feed_forward(model, kind, w, y)
        y = y if model.norm_position == "before" else norm(model, w, f"{half}_post_norm", y)
        x = x + model.residual_scale * y
    return x


def half_input(model: Model, w: Weights, half: str, x: Tensor) -> Tensor:
    """What attention (``attn``) or the feed-forward (``ffn``) reads of the residual stream x."""
    if model.block != "parallel" and model.norm_position == "after":
        return x
    return norm(model, w, f"{half if model.norms_per_layer > 1 else 'attn'}_norm", x)


def _feed_forward(model: Model, kind: LayerKind, w: Weights, x: Tensor) -> Tensor:
    if not kind.has_experts:
        return dense(model.ffn, w, "", x)
    assert model.experts is not None
    return experts(model.experts, w, x, dense)


def dense(ffn: FeedForward, w: Weights, prefix: str, x: Tensor) -> Tensor:
    """A feed-forward whose tensors' names begin with ``prefix``."""
    out = hidden(ffn, w, prefix, x) @ w[f"{prefix}wo"]
    return out + w[f"{prefix}wo_bias"] if ffn.has_bias else out


def hidden(ffn: FeedForward, w: Weights, prefix: str, x: Tensor) -> Tensor:
    """What the output matrix of :func:`dense` reads, [..., columns]."""
    inputs = [x @ w[prefix + name] for name in ffn.inputs]
    if ffn.has_bias:
        inputs = [each + w[f"{prefix}{name}_bias"] for each, name in zip(inputs, ffn.inputs, strict=True)]
    return _activated(ffn.activation, inputs)


def _activated(activation: str, inputs: list[Tensor]) -> Tensor:
    first = inputs[0]
    by_tanh = first * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (first + 0.044715 * first**3)))
    match activation:
        case "swiglu":
            return first * torch.sigmoid(first) * inputs[1]
        case "swiglu_clamped":
            gate, up = first.clamp(max=7.0), inputs[1].clamp(-7.0, 7.0)
            return gate * torch.sigmoid(1.702 * gate) * (up + 1)
        case "geglu":
            return by_tanh * inputs[1]
        case "gelu_tanh":
            return by_tanh
        case "relu":
            return first.clamp(min=0)
        case "gelu":
            return first * 0.5 * (1 + torch.erf(first / math.sqrt(2)))
    raise ValueError(activation)
