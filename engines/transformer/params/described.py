"""An array before it exists: its shape, dtype and sharding, and where its values come from."""

import math
from dataclasses import dataclass, replace

from jax.sharding import PartitionSpec as P

from engines.transformer.params.fill import merged
from engines.transformer.params.tree import Matrix
from engines.weights.formats import Fill


@dataclass(frozen=True, slots=True)
class Described:
    """One array: its shape, dtype and sharding, and a function that returns its values in a range.

    ``at_once``: all entries of the first axis are filled together, as a quantized matrix needs for its scales.
    """

    shape: tuple[int, ...]
    dtype: str
    spec: P
    fill: Fill
    at_once: bool = False


def with_flat_vectors(matrix: Matrix) -> Matrix:
    """The matrix of one layer with its scale and bias in one dimension.

    A TPU stores a vector with dimensions of 1 in other tiles than one without, and would copy it in every step. Those
    of experts and of their router keep theirs.
    """
    if not matrix.parts:
        return matrix

    def flat(each: Described | None) -> Described | None:
        if each is None:
            return None
        fill = merged(each.shape, 1, each.fill) if len(each.shape) == 3 else each.fill
        spec = P(*each.spec[1:2])
        return Described((math.prod(each.shape),), each.dtype, spec, lambda index: fill((slice(0, 1), *index))[0])

    return replace(matrix, scale=flat(matrix.scale), bias=flat(matrix.bias))
