"""The model on one device in float32, without cache, shards or fused matrices: the reference for verification.

It shares no code with the timed model; it loads the same tensors from the same source, one layer at a time.
"""

import math

import torch
from torch import Tensor

from engines.core.model import Model
from engines.torch.load_tensor import load_tensor
from engines.weights.random import Source, tensors

Weights = dict[str, Tensor]


@torch.inference_mode()
def reference_logits(model: Model, tokens: Tensor, positions: list[int], source: Source) -> Tensor:
    """Logits at ``positions`` of a forward pass over ``tokens`` [batch, time] → [positions, batch, vocab]."""
    device = tokens.device
    specs = tensors(model)

    def made(prefix: str) -> Weights:
        return {
            name.removeprefix(prefix): load_tensor(spec, source, [slice(None)] * len(spec.shape), device)
            for name, spec in specs.items()
            if (name.startswith(prefix) if prefix else not name.startswith("layers."))
        }

    outer = made("")
    x = outer["embedding"][tokens]
    if model.position == "learned":
        x = x + outer["positions"][: tokens.shape[1]]
    for number in range(model.num_layers):
        x = _layer(model, made(f"layers.{number}."), x)
    x = _norm(model, outer, "final_norm", x[:, positions])
    logits = x @ (outer["embedding"].T if model.tied_embedding else outer["lm_head"])
    return (logits + outer["lm_head_bias"] if model.lm_head_bias else logits).transpose(0, 1)


def _layer(model: Model, w: Weights, x: Tensor) -> Tensor:
    if model.block == "serial":
        x = x + _attention(model, w, _norm(model, w, "attn_norm", x))
        return x + _feed_forward(model, w, _norm(model, w, "ffn_norm", x))
    first = _norm(model, w, "attn_norm", x)
    second = _norm(model, w, "ffn_norm", x) if model.norms_per_layer == 2 else first
    return x + _attention(model, w, first) + _feed_forward(model, w, second)


def _norm(model: Model, w: Weights, name: str, x: Tensor) -> Tensor:
    if model.norm == "layernorm":
        x = x - x.mean(dim=-1, keepdim=True)
    x = x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + model.norm_epsilon) * w[f"{name}.scale"]
    return x + w[f"{name}.bias"] if model.norm_bias else x


def _attention(model: Model, w: Weights, x: Tensor) -> Tensor:
    time = x.shape[1]
    q, k, v = (torch.einsum("bte,ehd->bhtd", x, w[name]) for name in "qkv")
    if model.attn_bias:
        q, k, v = (each + w[f"{name}_bias"][:, None] for each, name in zip((q, k, v), "qkv", strict=True))
    if model.position == "rotary":
        q, k = _rotate(model, q), _rotate(model, k)
    group = model.num_heads // model.num_kv_heads
    later = torch.ones(time, time, dtype=torch.bool, device=x.device).triu(1)
    heads = []
    for head in range(model.num_heads):  # one at a time, so that the scores of a long context fit
        scores = q[:, head] @ k[:, head // group].mT / math.sqrt(model.head_dim)
        heads.append(scores.masked_fill(later, -torch.inf).softmax(dim=-1) @ v[:, head // group])
    out = torch.stack(heads, dim=1)
    out = torch.einsum("bhtd,hde->bte", out, w["o"])
    return out + w["o_bias"] if model.has_output_bias else out


def _rotate(model: Model, x: Tensor) -> Tensor:
    """Rotary embeddings of x [batch, heads, time, dim]: pairs (2i, 2i+1), or (i, i + half), times e^(iθ)."""
    dim = model.rotated_dim
    frequencies = torch.tensor(model.rotary_frequencies, dtype=torch.float64, device=x.device)
    angles = torch.outer(torch.arange(x.shape[2], dtype=torch.float64, device=x.device), frequencies)
    unit = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
    turned = x[..., :dim]
    if model.rotary_interleaved:
        pairs = turned.unflatten(-1, (-1, 2))
        out = torch.view_as_real(torch.complex(pairs[..., 0], pairs[..., 1]) * unit).flatten(-2)
    else:
        product = torch.complex(*turned.chunk(2, dim=-1)) * unit
        out = torch.cat([product.real, product.imag], dim=-1)
    return torch.cat([out, x[..., dim:]], dim=-1)


def _feed_forward(model: Model, w: Weights, x: Tensor) -> Tensor:
    inputs = [x @ w[name] for name in model.ffn.inputs]
    if model.ffn_bias:
        inputs = [each + w[f"{name}_bias"] for each, name in zip(inputs, model.ffn.inputs, strict=True)]
    if model.ffn.gated:
        hidden = inputs[0] * torch.sigmoid(inputs[0]) * inputs[1]
    elif model.activation == "gelu_tanh":
        cubic = inputs[0] + 0.044715 * inputs[0] ** 3
        hidden = inputs[0] * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * cubic))
    else:
        hidden = inputs[0] * 0.5 * (1 + torch.erf(inputs[0] / math.sqrt(2)))
    out = hidden @ w["wo"]
    return out + w["wo_bias"] if model.ffn_bias else out
