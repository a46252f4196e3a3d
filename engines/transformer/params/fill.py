"""Functions that return any range of an array's values: stacked by layer, merged, padded.

Nothing here holds a whole matrix: each device requests only its own part.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.weights.formats import Fill, Index
from engines.weights.random import Floats


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
