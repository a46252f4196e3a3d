"""How a layer's tensors lie as bytes, so that they can wait in one place and be put together in another."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor

from engines.core.layer_kind import LayerKind
from engines.torch.parameters import LayerParameters, Matrix

ALIGNED_BYTES: Final = 256
"""A tensor of a room begins at a multiple of this many bytes, as CUDA's allocator has it."""


@dataclass(frozen=True, slots=True)
class Form:
    """A layer's tensors without their values: name → (shape, dtype), in the order in which they lie."""

    kind: LayerKind
    tensors: tuple[tuple[str, str, torch.Size, torch.dtype], ...]

    @classmethod
    def of(cls, layer: LayerParameters) -> Self:
        """That of a layer, which may be on the meta device."""
        return cls(layer.kind, tuple((owner, name, each.shape, each.dtype) for owner, name, each in _named(layer)))

    @property
    def room_bytes(self) -> int:
        """Bytes on a device, each tensor aligned."""
        return sum(aligned(size.numel() * dtype.itemsize) for _, _, size, dtype in self.tensors)

    def placed(self, room: Tensor, parts: Iterator[Tensor]) -> tuple[LayerParameters, int]:
        """The layer in ``room`` [bytes], copied from the bytes of each tensor; and how many bytes that were."""
        made, at, sent = LayerParameters(self.kind, {}, {}), 0, 0
        for (owner, name, size, dtype), part in zip(self.tensors, parts, strict=True):
            own = room[at : at + part.numel()]
            own.copy_(part, non_blocking=True)
            at, sent = at + aligned(part.numel()), sent + part.numel()
            tensor = own.view(dtype).view(size)
            if owner == "weight":
                made.matrices[name] = Matrix(tensor)
            elif owner == "scale":
                made.matrices[name].scale = tensor
            else:
                made.vectors[name] = tensor
        return made, sent

    def split(self, whole: Tensor) -> Iterator[Tensor]:
        """The bytes of each tensor, of ``whole`` [bytes] in which they follow one another."""
        at = 0
        for _, _, size, dtype in self.tensors:
            count = size.numel() * dtype.itemsize
            yield whole[at : at + count]
            at += count


def bytes_of(layer: LayerParameters) -> list[Tensor]:
    """The bytes of each tensor of a layer, in the order of its form."""
    return [each.contiguous().flatten().view(torch.uint8) for _, _, each in _named(layer)]


def aligned(size: int) -> int:
    """The bytes that a tensor of ``size`` bytes takes in a room."""
    return -(-size // ALIGNED_BYTES) * ALIGNED_BYTES


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor where ``device`` can copy it from without a stop on the way: page-locked beside a GPU."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def _named(layer: LayerParameters) -> list[tuple[str, str, Tensor]]:
    """Every tensor of a layer: what it is, whose, and itself."""
    listed = [
        ("weight" if part is matrix.weight else "scale", name, part)
        for name, matrix in layer.matrices.items()
        for part in ([matrix.weight] if matrix.scale is None else [matrix.weight, matrix.scale])
    ]
    return listed + [("vector", name, vector) for name, vector in layer.vectors.items()]
