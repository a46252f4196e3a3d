"""Quantized weights as the numbers that they stand for: float8 in square blocks (DeepSeek-V3), mxfp4 (gpt-oss).

float8: an e4m3 matrix [out, in] beside ``…_scale_inv`` [⌈out/128⌉, ⌈in/128⌉], by which its blocks of 128 × 128 are
multiplied. mxfp4 (OCP Microscaling Formats 1.0): ``…_blocks`` [experts, out, in/32, 16] of two e2m1 numbers a byte, the
lower half first, and ``…_scales`` [experts, out, in/32], powers of two with a bias of 127; together they are
[experts, in, out].
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FLOAT8, MXFP4 = "F8_E4M3 in blocks", "MXFP4"
BLOCK: Final = 128
"""Side of a block of float8 with one scale."""
GROUP: Final = 32
"""Numbers of mxfp4 with one scale."""
E2M1: Final = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
SCALE, BLOCKS, SCALES = "_scale_inv", "_blocks", "_scales"
Read = Callable[..., NDArray[Any]]
Shapes = Mapping[str, tuple[tuple[int, ...], str]]
"""Stored tensor → its shape and number format."""


def decoded_shapes(stored: Shapes) -> tuple[dict[str, tuple[tuple[int, ...], str]], set[str]]:
    """The quantized tensors as the matrices that they stand for, and the stored tensors that are parts of them."""
    found, parts = {}, set()
    for name, (shape, dtype) in stored.items():
        base = name.removesuffix(BLOCKS)
        if dtype == "F8_E4M3" and name + SCALE in stored:
            found[name] = shape, FLOAT8
            parts.add(name + SCALE)
        elif base != name and dtype == "U8" and base + SCALES in stored and len(shape) == 4:
            experts, rows, groups, _ = shape
            found[base] = (experts, groups * GROUP, rows), MXFP4
            parts |= {name, base + SCALES}
    return found, parts


def read_mxfp4(read: Read, name: str, index: tuple[slice, ...]) -> NDArray[np.float32]:
    """``name[experts, in, out]`` in float32; ``read`` gives ranges of stored tensors."""
    experts, inward, rows = index
    groups = slice(inward.start // GROUP, -(-inward.stop // GROUP))
    packed = read(name + BLOCKS, experts, rows, groups, slice(0, GROUP // 2))
    scales = read(name + SCALES, experts, rows, groups)
    numbers = np.empty((*packed.shape[:-1], GROUP), np.float32)
    numbers[..., 0::2], numbers[..., 1::2] = E2M1[packed & 0x0F], E2M1[packed >> 4]
    numbers = np.ldexp(numbers, scales[..., None].astype(np.int32) - 127)
    wide = numbers.reshape(*numbers.shape[:2], -1)
    first = inward.start - groups.start * GROUP
    part: NDArray[np.float32] = wide[..., first : first + inward.stop - inward.start].swapaxes(1, 2)
    return part


def read_float8(
    path: Path, read: Read, name: str, shape: tuple[int, ...], index: tuple[slice, ...]
) -> NDArray[np.float32]:
    """``name[out, in]`` in float32, scaled; ``read`` gives ranges of stored tensors."""
    import ml_dtypes

    rows, columns = index
    raw = np.memmap(path, np.uint8, "r", _offset(path, name), shape)[rows, columns]
    values = np.ascontiguousarray(raw).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    blocks = [slice(each.start // BLOCK, -(-each.stop // BLOCK)) for each in (rows, columns)]
    scales = read(name + SCALE, *blocks).astype(np.float32)
    for axis, (each, block) in enumerate(zip((rows, columns), blocks, strict=True)):
        scales = scales.repeat(BLOCK, axis)
        first = each.start - block.start * BLOCK
        scales = scales.take(range(first, first + each.stop - each.start), axis)
    found: NDArray[np.float32] = values * scales
    return found


def _offset(path: Path, name: str) -> int:
    """Where a tensor's bytes begin in its file: NumPy has no name for float8, by which safetensors could read it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return 8 + length + int(header[name]["data_offsets"][0])
