"""Weights on a device: random ones are generated there, bit-identical to ``engines.weights.random``."""

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from engines.weights.random import Source, values
from engines.weights.random import Tensor as Spec

LOW_32: Final = 0xFFFFFFFF
CHUNK_VALUES: Final = 1 << 24
"""Values generated at once on a GPU: the 64-bit hash needs buffers that are several times the result."""


def load_tensor(spec: Spec, source: Source, index: Sequence[slice], device: torch.device) -> Tensor:
    """``spec[index]`` as float32 on ``device``; on the meta device without values."""
    if device.type == "meta":
        bounds = [part.indices(size)[:2] for part, size in zip(index, spec.shape, strict=True)]
        return torch.empty([max(0, stop - start) for start, stop in bounds], device=device)
    if device.type == "cpu" or not isinstance(source, int):
        return torch.from_numpy(values(spec, source, index)).to(device)
    return generate_on_device(spec, source, index, device)


def generate_on_device(spec: Spec, seed: int, index: Sequence[slice], device: torch.device) -> Tensor:
    """As :func:`load_tensor`, by :func:`engines.weights.random.hashed_uniform`'s hash in 64-bit arithmetic."""
    bounds = [part.indices(size)[:2] for part, size in zip(index, spec.shape, strict=True)]
    shape = [max(0, stop - start) for start, stop in bounds]
    out = torch.empty(shape, dtype=torch.float32, device=device)
    if not out.numel():
        return out
    # In blocks along the first axis; the flat indices within a row are the same for every row.
    inner = torch.zeros(1, dtype=torch.int64, device=device)
    stride = 1
    for (start, stop), size in reversed(list(zip(bounds[1:], spec.shape[1:], strict=True))):
        along = torch.arange(start, stop, device=device) * stride
        inner = (along[:, None] + inner[None, :]).reshape(-1)
        stride *= size
    large = math.prod(spec.shape) > 1 << 32
    rows = max(1, CHUNK_VALUES // inner.numel())
    flat_out = out.view(shape[0], -1)
    for at in range(0, shape[0], rows):
        number = torch.arange(bounds[0][0] + at, bounds[0][0] + min(at + rows, shape[0]), device=device)
        uniform = _hash(number[:, None] * stride + inner[None, :], spec.name, seed, large)
        flat_out[at : at + rows] = (uniform - 0.5) * (spec.std * math.sqrt(12.0)) + spec.mean
    return out


def _hash(flat: Tensor, name: str, seed: int, large: bool) -> Tensor:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    first, second = (int.from_bytes(digest[at : at + 4], "little") for at in (0, 4))
    bits = _mix((flat & LOW_32) ^ first)
    if large:
        bits = (bits + (flat >> 32) * 0x9E3779B1) & LOW_32
    return (_mix(bits ^ second) >> 8).to(torch.float32) * 2.0**-24


def _mix(bits: Tensor) -> Tensor:
    bits = ((bits ^ (bits >> 16)) * 0x85EBCA6B) & LOW_32
    bits = ((bits ^ (bits >> 13)) * 0xC2B2AE35) & LOW_32
    return bits ^ (bits >> 16)
