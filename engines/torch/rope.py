"""Rotary position embeddings."""

from typing import Final

import torch
from torch import Tensor

from engines.core.layer_kind import LayerKind
from engines.core.model import Model

FIRST: Final = LayerKind()


class Rope:
    """Rotary position embeddings (Su et al. 2021) on pairs (2i, 2i+1), or (i, i + half), of the first ``rotary_dim``.

    (a, b) → (a·cos − b·sin, b·cos + a·sin) is x·cos + partner·(±sin), with tables [length, dim] as wide as x.
    """

    def __init__(self, model: Model, length: int, device: torch.device, kind: LayerKind = FIRST) -> None:
        self.dim = model.rotated_dim
        self.interleaved = model.rotary_interleaved
        turned = model.rotary(kind, length)
        frequencies = torch.tensor(turned.frequencies, dtype=torch.float64)
        angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
        cos, sin = angles.cos() * turned.scale, angles.sin() * turned.scale
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
