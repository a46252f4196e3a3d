"""How number formats hold a matrix: by a scale of each output channel, in groups, or in blocks of powers of two.

Everything is a function of ranges of the matrix, so that nothing here holds a whole one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.core.dtypes import LARGEST
from engines.weights.random import Floats

Index = tuple[slice, ...]
Fill = Callable[[Index], NDArray[Any]]
"""Index with explicit bounds → the values there."""


def steps(dtype: str) -> float:
    """Steps between the least and the largest stored value of a group: 15 of int4, 255 of int8."""
    return 2 * LARGEST[dtype] + 1


def channel_scale(shape: tuple[int, ...], contracted: tuple[int, ...], fill: Fill, largest: float) -> Fill:
    """Scale of each output channel: max|column| / largest, and 1 for a column of zeros. Computed in blocks of rows."""
    known: dict[tuple[tuple[int, int], ...], Floats] = {}

    def scale(index: Index) -> Floats:
        key = tuple((each.start, each.stop) for each in index)
        if key not in known:
            known.clear()
            kept = iter(index)
            whole = [slice(0, size) if axis in contracted else next(kept) for axis, size in enumerate(shape)]
            blocks = []
            for start in range(whole[0].start, whole[0].stop, step := rows_at_once(shape)):
                first = slice(start, min(start + step, whole[0].stop))
                blocks.append(np.abs(fill((first, *whole[1:]))).max(axis=contracted))
            magnitude = np.concatenate(blocks)
            known[key] = np.where(magnitude > 0, magnitude / np.float32(largest), np.float32(1))
        return known[key]

    return scale


def rows_at_once(shape: tuple[int, ...]) -> int:
    """Entries of the first axis that hold about 2²⁴ values."""
    return max(1, (1 << 24) // int(np.prod(shape[1:])))


def quantized(contracted: tuple[int, ...], fill: Fill, scale: Fill, integers: bool) -> Fill:
    """Values divided by their channel's scale, rounded where the format holds integers."""

    def filled(index: Index) -> NDArray[Any]:
        kept = tuple(each for axis, each in enumerate(index) if axis not in contracted)
        scaled: NDArray[Any] = fill(index) / np.expand_dims(scale(kept), contracted)
        return np.round(scaled) if integers else scaled

    return filled


class Blocks:
    """Ranges of a matrix in mxfp4, blocks of ``size`` along ``axis``, made from ``fill``.

    A block's scale is the power of two below its largest value over 4, the largest power of two of the 4-bit format,
    whose values reach 6; what is larger becomes 6 (OCP Microscaling Formats, version 1.0, section 6.3).
    """

    def __init__(self, fill: Fill, axis: int, size: int) -> None:
        self.fill, self.axis, self.size = fill, axis, size

    def values(self, index: Index) -> NDArray[Any]:
        """Weights […, blocks, size, …], at an index of all rows of its blocks."""
        blocks = in_groups(self.fill, self.axis, self.size, (*index[: self.axis + 1], *index[self.axis + 2 :]))
        scaled: NDArray[Any] = np.clip(blocks / self._of(blocks), -6, 6)
        return scaled

    def scales(self, index: Index) -> NDArray[Any]:
        """Scales […, blocks, …]."""
        return np.squeeze(self._of(in_groups(self.fill, self.axis, self.size, index)), self.axis + 1)

    def _of(self, blocks: Floats) -> Floats:
        largest = np.abs(blocks).max(axis=self.axis + 1, keepdims=True)
        power = np.floor(np.log2(np.where(largest > 0, largest, 4)))
        scale: Floats = np.exp2(power - 2).astype(np.float32)
        return scale


def in_groups(fill: Fill, axis: int, size: int, index: Index) -> Floats:
    """The values […, groups, size, …] of the groups of ``size`` rows along ``axis`` at an index of them."""
    groups = index[axis]
    rows = slice(groups.start * size, groups.stop * size)
    values = fill((*index[:axis], rows, *index[axis + 1 :]))
    blocks: Floats = values.reshape(*values.shape[:axis], -1, size, *values.shape[axis + 1 :])
    return blocks


class Groups:
    """Ranges of a matrix quantized in groups of ``size`` along ``axis``, made from ``fill``.

    A group's range reaches from its least value to its largest and includes 0, which is stored exactly; ``steps`` are
    those between them. scale = range/steps, rounded to ``scale_dtype``; zero = −least/scale, rounded, less half of the
    stored numbers, as the values are.
    """

    def __init__(self, fill: Fill, axis: int, size: int, steps: float, scale_dtype: Any) -> None:
        self.fill, self.axis, self.size, self.steps = fill, axis, size, steps
        self.scale_dtype = scale_dtype
        self.middle = np.float32((steps + 1) / 2)

    def values(self, index: Index) -> NDArray[Any]:
        """Weights […, groups, size, …], at an index of all rows of its groups."""
        blocks = in_groups(self.fill, self.axis, self.size, (*index[: self.axis + 1], *index[self.axis + 2 :]))
        scale, zero = self._of(blocks)
        stored: NDArray[Any] = np.clip(np.round(blocks / scale) + zero, 0, self.steps) - self.middle
        return stored

    def scales(self, index: Index) -> NDArray[Any]:
        """Scales […, groups, …]."""
        return np.squeeze(self._of(in_groups(self.fill, self.axis, self.size, index))[0], self.axis + 1)

    def zeros(self, index: Index) -> NDArray[Any]:
        """Zero points, as :meth:`scales`."""
        return np.squeeze(self._of(in_groups(self.fill, self.axis, self.size, index))[1], self.axis + 1) - self.middle

    def _of(self, blocks: Floats) -> tuple[Floats, Floats]:
        """(scale, zero) […, groups, 1, …]."""
        least, largest = (edge(blocks, axis=self.axis + 1, keepdims=True) for edge in (np.min, np.max))
        least, largest = np.minimum(least, 0), np.maximum(largest, 0)
        exact = (largest - least) / np.float32(self.steps)
        scale = np.where(exact > 0, exact, np.float32(1)).astype(self.scale_dtype).astype(np.float32)
        return scale, np.clip(np.round(-least / scale), 0, self.steps)
