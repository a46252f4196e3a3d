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
    specs = tensors(model)

    def made(prefix: str) -> Weights:
        return {
            name.removeprefix(prefix): load_tensor(spec, source, [slice(None)] * len(spec.shape), device)
            for name, spec in specs.items()
            if (name.startswith(prefix) if prefix else not name.startswith("layers."))
        }

    outer = made("")
    x = outer["embedding"][tokens] * model.embedding_scale
    if model.position == "learned":
        x = x + outer["positions"][: tokens.shape[1]]
    if model.embedding_norm:
        x = norm(model, outer, "embedding_norm", x)
    for number, kind in enumerate(model.layer_kinds):
        x = _layer(model, kind, made(f"layers.{number}."), x, length or tokens.shape[1])
    x = norm(model, outer, "final_norm", x[:, positions])
    logits = x @ (outer["embedding"].T if model.tied_embedding else outer["lm_head"])
    if model.lm_head_bias:
        logits = logits + outer["lm_head_bias"]
    logits = logits * model.logit_scale
    if model.logit_softcap is not None:
        logits = torch.tanh(logits / model.logit_softcap) * model.logit_softcap
    return logits.transpose(0, 1)


def norm(model: Model, w: Weights, name: str, x: Tensor) -> Tensor:
    """The norm of the last dimension under ``name``."""
    if model.norm == "layernorm":
        x = x - x.mean(dim=-1, keepdim=True)
    x = x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + model.norm_epsilon) * w[f"{name}.scale"]
    return x + w[f"{name}.bias"] if model.norm_bias else x


def _layer(model: Model, kind: LayerKind, w: Weights, x: Tensor, length: int) -> Tensor:
    if model.block == "parallel":
        first = norm(model, w, "attn_norm", x)
        second = norm(model, w, "ffn_norm", x) if model.norms_per_layer == 2 else first
        return x + model.residual_scale * (
            attention(model, kind, w, first, length) + _feed_forward(model, kind, w, second)
        )
    before, after = model.norm_position != "after", model.norm_position != "before"
    for half in ("attn", "ffn"):
        y = norm(model, w, f"{half}_norm", x) if before else x
        y = attention(model, kind, w, y, length) if half == "attn" else _feed_forward(model, kind, w, y)
        x = x + model.residual_scale * (norm(model, w, f"{half}_post_norm", y) if after else y)
    return x


def _feed_forward(model: Model, kind: LayerKind, w: Weights, x: Tensor) -> Tensor:
    if not kind.has_experts:
        return dense(model.ffn, w, "", x)
    assert model.experts is not None
    return experts(model.experts, w, x, dense)


def dense(ffn: FeedForward, w: Weights, prefix: str, x: Tensor) -> Tensor:
    """A feed-forward whose tensors' names begin with ``prefix``."""
    inputs = [x @ w[prefix + name] for name in ffn.inputs]
    if ffn.has_bias:
        inputs = [each + w[f"{prefix}{name}_bias"] for each, name in zip(inputs, ffn.inputs, strict=True)]
    out = _activated(ffn.activation, inputs) @ w[f"{prefix}wo"]
    return out + w[f"{prefix}wo_bias"] if ffn.has_bias else out


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
