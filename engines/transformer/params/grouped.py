"""A matrix in groups of rows, each with a scale and a zero point of its own for every column, as in AWQ and GPTQ.

A weight is (q − zero) · scale; q and zero are integers of the same format, stored less half their range so that they
are signed. The scale has 16 bits. (Lin et al. 2023, "AWQ"; Frantar et al. 2022, "GPTQ": w4a16, groups of 128.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from engines.core.dtypes import LARGEST


@partial(
    jax.tree_util.register_dataclass, data_fields=("scale", "values", "zero"), meta_fields=("group_size", "skipped")
)
@dataclass(frozen=True, slots=True)
class Grouped:
    """``values`` […, rows, columns], ``scale`` and ``zero`` […, groups, columns].

    The first group lacks its first ``skipped`` rows, and the last one may lack others, in a block that was cut
    elsewhere than between groups.
    """

    values: Any
    scale: Any
    zero: Any
    group_size: int
    skipped: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The matrix's, […, rows, columns]."""
        whole: tuple[int, ...] = self.values.shape
        return whole

    def dequantized(self, dtype: Any) -> Array:
        """The matrix [rows, columns] in ``dtype``."""
        rows, columns = self.shape
        groups = self.scale.shape[0]
        whole = groups * self.group_size == rows

        def spread(each: Array) -> Array:
            wide = jnp.broadcast_to(each.astype(dtype)[:, None], (groups, self.group_size, columns))
            flat = wide.reshape(-1, columns)
            return flat if whole else flat[self.skipped : self.skipped + rows]

        out: Array = (self.values.astype(dtype) - spread(self.zero)) * spread(self.scale)
        return out


Weights = Array | Grouped
"""A matrix's values: an array, whose channels may have scales, or in groups."""


def by_part(matrix: Any, function: Callable[[Array, int], Any], skipped: int = 0) -> Any:
    """``function(array, rows)`` of every array of a matrix, ``rows`` being those of the matrix that one of its rows is.

    An array by itself is the matrix: each of its rows is one.
    """
    if not isinstance(matrix, Grouped):
        return function(matrix, 1)
    size = matrix.group_size
    return Grouped(function(matrix.values, 1), function(matrix.scale, size), function(matrix.zero, size), size, skipped)


def steps(dtype: str) -> float:
    """Steps between the least and the largest stored value of a group: 15 of int4, 255 of int8."""
    return 2 * LARGEST[dtype] + 1
