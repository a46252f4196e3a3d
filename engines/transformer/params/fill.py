"""Functions that return any range of an array's values: stacked by layer, padded, quantized by channel or in groups.

Nothing here holds a whole matrix: each device requests only its own part.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.weights.random import Floats

Index = tuple[slice, ...]
Fill = Callable[[Index], NDArray[Any]]
"""Index with explicit bounds → the values there."""


def stacked(numbers: range, fill_layer: Callable[[int, Index], Floats]) -> Fill:
    """The layers ``numbers`` stacked along a first axis."""
    return lambda index: np.stack([fill_layer(each, index[1:]) for each in numbers[index[0]]])


def merged(shape: tuple[int, ...], axis: int | None, fill: Fill) -> Fill:
    """Values of an array of which ``axis`` and the next are one dimension, ranges being whole entries of ``axis``."""
    if axis is None:
        return fill
    width = shape[axis + 1]

    def filled(index: Index) -> NDArray[Any]:
        entries = slice(index[axis].start // width, index[axis].stop // width)
        block = fill((*index[:axis], entries, slice(0, width), *index[axis + 1 :]))
        return block.reshape(tuple(each.stop - each.start for each in index))

    return filled


def padded(fill: Fill, real: int) -> Fill:
    """Zeros beyond ``real`` along the first axis."""

    def filled(index: Index) -> Floats:
        start, stop = index[0].start, min(index[0].stop, real)
        shape = [each.stop - each.start for each in index]
        block = np.zeros(shape, np.float32)
        if start < stop:
            block[: stop - start] = fill((slice(start, stop), *index[1:]))
        return block

    return filled


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
