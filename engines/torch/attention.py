"""Attention over a static cache, and rotary position embeddings."""

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.core.model import Model

KeysAndValues = tuple[Tensor, Tensor]


class Rope:
    """Rotary position embeddings (Su et al. 2021) on pairs (2i, 2i+1), or (i, i + half), of the first ``rotary_dim``.

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
        """(cos, sin) at ``positions`` [time], each [time, 1, dim]: computed once a forward pass, for all layers."""
        return self.cos.index_select(0, positions)[:, None], self.sin.index_select(0, positions)[:, None]

    def rotate(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """x: [batch, time, heads, dim] → the same, rotated in float32 by the tables of :meth:`at`."""
        cos, sin = tables
        rotated = x[..., : self.dim]
        if self.interleaved:
            partner = rotated.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        else:
            partner = rotated.roll(self.dim // 2, dims=-1)
        rotated = torch.addcmul(rotated * cos, partner, sin).to(x.dtype)
        return rotated if self.dim == x.shape[-1] else torch.cat([rotated, x[..., self.dim :]], dim=-1)


class CausalMask:
    """Which cached tokens the new tokens see, and the rotary tables of the new tokens.

    ``positions`` [time] are those of the new tokens, on the device. ``limit`` is the number of cached positions to
    read: if ``exact``, all of them are seen; otherwise ``allowed`` [1, 1, 1, limit] masks those after the position.
    """

    def __init__(self, positions: Tensor, limit: int, exact: bool, rope: Rope | None = None) -> None:
        self.positions, self.limit = positions, limit
        self.allowed: Tensor | None = None
        if not exact:
            self.allowed = (torch.arange(limit, device=positions.device) <= positions)[None, None, None, :]
        self.rope_tables = None if rope is None else rope.at(positions)


def attend(q: Tensor, k: Tensor, v: Tensor, cache: KeysAndValues, mask: CausalMask) -> Tensor:
    """q: [batch, time, heads, dim], k and v: [batch, time, kv_heads, dim] → [batch, time, heads · dim].

    ``cache``: keys and values of one layer, [batch, kv_heads, length, dim] each, to which k and v are written. More
    than one new token is a prompt from position 0, which attends only to itself.
    """
    batch, time, heads, dim = q.shape
    new_k, new_v = (each.transpose(1, 2).to(cache[0].dtype) for each in (k, v))
    cache[0].index_copy_(2, mask.positions, new_k)
    cache[1].index_copy_(2, mask.positions, new_v)
    if time > 1:
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            new_k.to(q.dtype),
            new_v.to(q.dtype),
            is_causal=True,
            enable_gqa=heads != k.shape[2],
        )
        return out.transpose(1, 2).reshape(batch, time, heads * dim)
    # One new token: the query heads of a key/value head take the place of the time dimension, so that no key is copied.
    # On GPUs only the kernel without a mask splits a long context over the whole device.
    keys, values = (each[:, :, : mask.limit].to(q.dtype) for each in cache)
    out = F.scaled_dot_product_attention(q.reshape(batch, k.shape[2], -1, dim), keys, values, attn_mask=mask.allowed)
    return out.reshape(batch, 1, heads * dim)
