"""The attention of the reference: every key and value in memory, one head at a time."""

import math

import torch
from torch import Tensor

from engines.core.layer_kind import LayerKind
from engines.core.model import Model
from engines.core.rotary import Rotary

Weights = dict[str, Tensor]


def attention(model: Model, kind: LayerKind, w: Weights, x: Tensor, length: int) -> Tensor:
    """x: [batch, time, embed] of texts of up to ``length`` → the same, before it joins the residual stream."""
    out = torch.einsum("bhtd,hde->bte", attended(model, kind, w, x, length), w["o"])
    return out + w["o_bias"] if model.has_output_bias else out


def attended(model: Model, kind: LayerKind, w: Weights, x: Tensor, length: int) -> Tensor:
    """What each query head takes of the values, [batch, heads, time, value dim]: before the output matrix."""
    q, k, v = (_latent if model.attention.is_latent else _by_head)(model, model.rotary(kind, length), w, x)
    seen, distance = _seen(model, kind, x.shape[1], x.device)
    group = q.shape[1] // k.shape[1]
    scale = model.attn_scale or 1 / math.sqrt(model.head_dim)
    heads = []
    for head in range(model.num_heads):  # one at a time, so that the scores of a long context fit
        scores = q[:, head] @ k[:, head // group].mT * scale
        if model.attn_softcap is not None:
            scores = torch.tanh(scores / model.attn_softcap) * model.attn_softcap
        if model.position == "alibi":
            scores = scores - _slope(head, model.num_heads) * distance
        scores = scores.masked_fill(~seen, -torch.inf)
        if model.attention_sinks:
            sink = w["sinks"][head].expand(*scores.shape[:-1], 1)
            weights = torch.cat([scores, sink], dim=-1).softmax(dim=-1)[..., :-1]
        else:
            weights = scores.softmax(dim=-1)
        heads.append(weights @ v[:, head // group])
    return torch.stack(heads, dim=1)


def _by_head(model: Model, rotary: Rotary, w: Weights, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v [batch, heads, time, dim]."""
    q, k, v = (torch.einsum("bte,ehd->bhtd", x, w[name]) for name in "qkv")
    if model.attn_bias:
        q, k, v = (each + w[f"{name}_bias"][:, None] for each, name in zip((q, k, v), "qkv", strict=True))
    if model.qk_norm:
        q, k = _rms(model, q, w["q_norm.scale"]), _rms(model, k, w["k_norm.scale"])
    if model.position == "rotary":
        dim = model.rotated_dim
        q, k = (torch.cat([_rotate(model, rotary, each[..., :dim]), each[..., dim:]], dim=-1) for each in (q, k))
    return q, k, v


def _latent(model: Model, rotary: Rotary, w: Weights, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q and k [batch, heads, time, head_dim], whose last dimensions turn, and v of every head."""
    if model.q_latent_dim is None:
        q = torch.einsum("bte,ehd->bhtd", x, w["q"])
    else:
        q = torch.einsum("btl,lhd->bhtd", _rms(model, x @ w["q_a"], w["q_a_norm.scale"]), w["q_b"])
    compressed, shared = (x @ w["kv_a"]).split([model.kv_latent_dim or 0, model.rotated_dim], dim=-1)
    latent = _rms(model, compressed, w["kv_a_norm.scale"])
    own, v = (torch.einsum("btl,lhd->bhtd", latent, w[name]) for name in ("k_b", "v_b"))
    turned = _rotate(model, rotary, shared[:, None]).expand(-1, model.num_heads, -1, -1)
    still = model.head_dim - model.rotated_dim
    q = torch.cat([q[..., :still], _rotate(model, rotary, q[..., still:])], dim=-1)
    return q, torch.cat([own, turned], dim=-1), v


def _rms(model: Model, x: Tensor, scale: Tensor) -> Tensor:
    return x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + model.norm_epsilon) * scale


def _seen(model: Model, kind: LayerKind, time: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """[query, key]: whether the query sees the key, and how far back it lies."""
    at = torch.arange(time, device=device)
    distance = at[:, None] - at[None, :]
    seen = distance >= 0
    if kind.window is not None and model.window_kind == "sliding":
        seen = seen & (distance < kind.window)
    elif kind.window is not None:
        seen = seen & (at[:, None] // kind.window == at[None, :] // kind.window)
    return seen, distance


def _slope(head: int, heads: int) -> float:
    """ALiBi's slope of a head (Press et al. 2022): 2^(−8i/n) for n heads, n a power of two.

    Of other numbers of heads the first ones are those of the power below, the rest every second of twice that power.
    """
    power = 1 << (heads.bit_length() - 1)
    if head < power:
        return float(2.0 ** (-8 * (head + 1) / power))
    return float(2.0 ** (-8 * (2 * (head - power) + 1) / (2 * power)))


def _rotate(model: Model, turned: Rotary, x: Tensor) -> Tensor:
    """Rotary embeddings of x [batch, heads, time, dim]: pairs (2i, 2i+1), or (i, i + half), times e^(iθ)."""
    frequencies = torch.tensor(turned.frequencies, dtype=torch.float64, device=x.device)
    angles = torch.outer(torch.arange(x.shape[2], dtype=torch.float64, device=x.device), frequencies)
    unit = torch.polar(torch.full_like(angles, turned.scale), angles).to(torch.complex64)
    if model.rotary_interleaved:
        pairs = x.unflatten(-1, (-1, 2))
        return torch.view_as_real(torch.complex(pairs[..., 0], pairs[..., 1]) * unit).flatten(-2)
    product = torch.complex(*x.chunk(2, dim=-1)) * unit
    return torch.cat([product.real, product.imag], dim=-1)
