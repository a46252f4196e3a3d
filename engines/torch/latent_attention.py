"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), absorbed and expanded, over a cache of latents."""

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.core.model import Model
from engines.torch.attention import Cache, CausalMask, PackedMask
from engines.torch.parameters import LayerParameters
from engines.torch.rope import Rope


def attend_latents(
    model: Model, w: LayerParameters, x: Tensor, cache: Cache, mask: CausalMask, rope: Rope, absorbed: bool
) -> Tensor:
    """x: [batch, time, embed] → [batch, time, heads · value_dim] of this rank's heads.

    ``cache`` is one tensor [batch, 1, length, latent + turned]: normed latent vectors, each beside the turned key that
    all heads share. ``absorbed`` queries go to the latent space, where all heads read the same; else every head makes
    its keys and values from the latent vectors. More than one new token is a prompt from position 0.
    """
    latent, turned = model.kv_latent_dim or 0, model.rotated_dim
    assert mask.rope_tables is not None
    q = _queries(model, w, x)
    still, turning = q.split([model.head_dim - turned, turned], dim=-1)
    turning = rope.rotate(turning, mask.rope_tables)
    compressed, shared = w.matrices["kv_a"](x).split([latent, turned], dim=-1)
    normed = F.rms_norm(compressed, (latent,), w.vectors["kv_a_norm.scale"], model.norm_epsilon)
    new = torch.cat([normed, rope.rotate(shared[:, :, None], mask.rope_tables)[:, :, 0]], dim=-1)[:, None]
    new = new.to(cache[0].dtype)
    mask.write(cache, (new,))
    way = _absorbed if absorbed else _expanded
    if isinstance(mask, PackedMask):
        out = []
        for each in mask.parts(cache, (new,)):
            read = each.read[0].to(x.dtype)
            out.append(way(model, w, still[:, each.queries], turning[:, each.queries], read, mask))
        return torch.cat(out, dim=1).flatten(2)
    read = (new if mask.is_prompt else cache[0][:, :, : mask.limit]).to(x.dtype)
    return way(model, w, still, turning, read, mask).flatten(2)


def _queries(model: Model, w: LayerParameters, x: Tensor) -> Tensor:
    """[batch, time, heads, head_dim]."""
    if model.q_latent_dim is None:
        q = w.matrices["q"](x)
        return q.view(*q.shape[:-1], -1, model.head_dim)
    normed = F.rms_norm(w.matrices["q_a"](x), (model.q_latent_dim,), w.vectors["q_a_norm.scale"], model.norm_epsilon)
    q = w.matrices["q_b"](normed)
    return q.view(*q.shape[:-1], -1, model.head_dim)


def _absorbed(
    model: Model, w: LayerParameters, still: Tensor, turning: Tensor, read: Tensor, mask: CausalMask
) -> Tensor:
    """One key/value head for all: the vectors that are read are keys, and without their turned part values."""
    latent, heads = model.kv_latent_dim or 0, still.shape[2]
    to_latent = w.matrices["k_b"].whole(still.dtype).unflatten(0, (heads, -1))
    from_latent = w.matrices["v_b"].whole(still.dtype).unflatten(0, (heads, -1))
    q = torch.cat([torch.einsum("bthd,hdl->bthl", still, to_latent), turning], dim=-1).transpose(1, 2)
    out = _weighed(model, q, read, read[..., :latent], mask)
    return torch.einsum("bhtl,hdl->bthd", out, from_latent)


def _expanded(
    model: Model, w: LayerParameters, still: Tensor, turning: Tensor, read: Tensor, mask: CausalMask
) -> Tensor:
    heads = still.shape[2]
    latents, shared = read[:, 0].split([model.kv_latent_dim or 0, model.rotated_dim], dim=-1)
    own, v = (w.matrices[name](latents).unflatten(-1, (heads, -1)).transpose(1, 2) for name in ("k_b", "v_b"))
    k = torch.cat([own, shared[:, None].expand(-1, heads, -1, -1)], dim=-1)
    q = torch.cat([still, turning], dim=-1).transpose(1, 2)
    return _weighed(model, q, k, v, mask).transpose(1, 2)


def _weighed(model: Model, q: Tensor, k: Tensor, v: Tensor, mask: CausalMask) -> Tensor:
    """q: [batch, heads, time, dim], k and v: [batch, heads or 1, keys, dim] → [batch, heads, time, v's dim]."""
    scale = model.attn_scale or model.head_dim**-0.5
    if q.shape[2] > 1:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1], scale=scale)
    if k.shape[1] == 1:  # heads take the place of time, so that no key is copied
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask.allowed, scale=scale)
        return out.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.allowed, scale=scale)
