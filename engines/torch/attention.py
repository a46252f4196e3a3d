"""Attention over a static cache, and rotary positions."""

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.model import Model


class Rotary:
    """Rotary positions (Su et al. 2021) on pairs (2i, 2i+1), or (i, i + half), of the first ``rotary_dim``."""

    def __init__(self, model: Model, length: int, device: torch.device) -> None:
        self.dim = model.rotated_dim
        self.interleaved = model.rotary_interleaved
        frequencies = torch.tensor(model.rotary_frequencies, dtype=torch.float64)
        angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
        self.cos, self.sin = (each.to(device, torch.float32) for each in (angles.cos(), angles.sin()))

    def turn(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: [batch, time, heads, dim] at ``positions`` [time] → the same, turned in float32."""
        cos, sin = (table.index_select(0, positions)[None, :, None, :] for table in (self.cos, self.sin))
        turned = x[..., : self.dim].float()
        if self.interleaved:
            a, b = turned[..., 0::2], turned[..., 1::2]
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        else:
            a, b = turned[..., : self.dim // 2], turned[..., self.dim // 2 :]
            turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
        return torch.cat([turned.to(x.dtype), x[..., self.dim :]], dim=-1)


class Reach:
    """Which cached tokens the new ones see.

    ``positions`` [time] are those of the new tokens, on the device. ``limit`` is the number of cached positions to
    read: exact where the host knows it, else all of the cache under a mask.
    """

    def __init__(self, positions: Tensor, limit: int, exact: bool) -> None:
        self.positions, self.limit = positions, limit
        self.mask: Tensor | None = None
        if not exact:
            self.mask = (torch.arange(limit, device=positions.device) <= positions)[None, None, None, :]


def attend(q: Tensor, k: Tensor, v: Tensor, cache: Tensor, reach: Reach) -> Tensor:
    """q: [batch, time, heads, dim], k and v: [batch, time, kv_heads, dim] → [batch, time, heads · dim].

    ``cache``: [2, batch, kv_heads, length, dim] of one layer, into which k and v are written. More than one new token
    is a prompt from position 0, which sees itself alone.
    """
    batch, time, heads, dim = q.shape
    new_k, new_v = (each.transpose(1, 2).to(cache.dtype) for each in (k, v))
    cache[0].index_copy_(2, reach.positions, new_k)
    cache[1].index_copy_(2, reach.positions, new_v)
    if time > 1:
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            new_k.to(q.dtype),
            new_v.to(q.dtype),
            is_causal=True,
            enable_gqa=heads != k.shape[2],
        )
        return out.transpose(1, 2).reshape(batch, time, heads * dim)
    # One new token: the query heads of a key/value head stand where its queries would, so that no key is copied.
    keys, values = (each[:, :, : reach.limit].to(q.dtype) for each in cache)
    out = F.scaled_dot_product_attention(q.reshape(batch, k.shape[2], -1, dim), keys, values, attn_mask=reach.mask)
    return out.reshape(batch, 1, heads * dim)
