"""Attention over a static cache, and rotary positions."""

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.core.model import Model

KeysAndValues = tuple[Tensor, Tensor]


class Rotary:
    """Rotary positions (Su et al. 2021) on pairs (2i, 2i+1), or (i, i + half), of the first ``rotary_dim``.

    (a, b) → (a·cos − b·sin, b·cos + a·sin) is x·cos + partner·(±sin), with tables [length, dim] as wide as x.
    """

    def __init__(self, model: Model, length: int, device: torch.device) -> None:
        self.dim = model.rotated_dim
        self.interleaved = model.rotary_interleaved
        frequencies = torch.tensor(model.rotary_frequencies, dtype=torch.float64)
        angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
        cos, sin = angles.cos(), angles.sin()
        if self.interleaved:
            wide_cos, wide_sin = cos.repeat_interleave(2, dim=1), torch.stack([-sin, sin], dim=2).flatten(1)
        else:
            wide_cos, wide_sin = torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)
        self.cos, self.sin = (each.to(device, torch.float32) for each in (wide_cos, wide_sin))

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Both tables at ``positions`` [time], as [time, 1, dim]: once a pass, for all of its layers."""
        return self.cos.index_select(0, positions)[:, None], self.sin.index_select(0, positions)[:, None]

    def turn(self, x: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
        """x: [batch, time, heads, dim] → the same, turned in float32."""
        cos, sin = at
        turned = x[..., : self.dim]
        if self.interleaved:
            partner = turned.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        else:
            partner = turned.roll(self.dim // 2, dims=-1)
        turned = torch.addcmul(turned * cos, partner, sin).to(x.dtype)
        return turned if self.dim == x.shape[-1] else torch.cat([turned, x[..., self.dim :]], dim=-1)


class Reach:
    """Which cached tokens the new ones see, and how they are turned.

    ``positions`` [time] are those of the new tokens, on the device. ``limit`` is the number of cached positions to
    read: exact where the host knows it, else all of the cache under a mask.
    """

    def __init__(self, positions: Tensor, limit: int, exact: bool, rotary: Rotary | None = None) -> None:
        self.positions, self.limit = positions, limit
        self.mask: Tensor | None = None
        if not exact:
            self.mask = (torch.arange(limit, device=positions.device) <= positions)[None, None, None, :]
        self.turns = None if rotary is None else rotary.at(positions)


def attend(q: Tensor, k: Tensor, v: Tensor, cache: KeysAndValues, reach: Reach) -> Tensor:
    """q: [batch, time, heads, dim], k and v: [batch, time, kv_heads, dim] → [batch, time, heads · dim].

    ``cache``: [batch, kv_heads, length, dim] twice, of one layer, into which k and v are written. More than one new
    token is a prompt from position 0, which sees itself alone.
    """
    batch, time, heads, dim = q.shape
    new_k, new_v = (each.transpose(1, 2).to(cache[0].dtype) for each in (k, v))
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
    # One new token: the query heads of a key/value head stand where its queries would, so that no key is copied. On
    # GPUs only the kernel without a mask splits a long context over the whole device.
    keys, values = (each[:, :, : reach.limit].to(q.dtype) for each in cache)
    out = F.scaled_dot_product_attention(q.reshape(batch, k.shape[2], -1, dim), keys, values, attn_mask=reach.mask)
    return out.reshape(batch, 1, heads * dim)
