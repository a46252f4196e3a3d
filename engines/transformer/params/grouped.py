"""A matrix in groups of rows, each with a scale and a zero point of its own for every column, as in AWQ and GPTQ.

A weight is (q − zero) · scale; q and zero are integers of the same format, stored less half their range so that they
are signed. The scale has 16 bits. (Lin et al. 2023, "AWQ"; Frantar et al. 2022, "GPTQ": w4a16, groups of 128.)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import Array, lax

FEWEST_TOKENS: Final = 0.5
"""Tokens, by the rows of a group, from which a dequantized matrix takes less memory traffic than sums of groups.

Sums are tokens/rows of the matrix in 4 bytes, the matrix itself is in 2, and both are written once and read once.
"""


@partial(jax.tree_util.register_dataclass, data_fields=("scale", "values", "zero"), meta_fields=("skipped", "rows"))
@dataclass(frozen=True, slots=True)
class Grouped:
    """``values`` […, groups, size, columns], ``scale`` and ``zero`` […, groups, columns]; ``zero`` is None in mxfp4.

    Groups have a dimension of their own: a matmul can then read one layer from a stack without a copy. A block that was
    cut elsewhere than between groups holds all groups that it touches, and of their rows is ``rows`` from ``skipped``
    on; ``rows`` is None where it is all.
    """

    values: Any
    scale: Any
    zero: Any
    skipped: int = 0
    rows: int | None = None

    @property
    def group_size(self) -> int:
        """Rows of a group."""
        size: int = self.values.shape[-2]
        return size

    @property
    def shape(self) -> tuple[int, ...]:
        """The matrix's, […, rows, columns]."""
        *before, groups, size, columns = self.values.shape
        return (*before, groups * size if self.rows is None else self.rows, columns)

    def map(self, function: Callable[[Array], Array]) -> "Grouped":
        """``function`` of every array."""
        zero = None if self.zero is None else function(self.zero)
        return replace(self, values=function(self.values), scale=function(self.scale), zero=zero)

    def dequantized(self, dtype: Any) -> Array:
        """The matrix [rows, columns] in ``dtype``."""
        rows, columns = self.shape
        values = self.values.astype(dtype)
        values = values if self.zero is None else values - self.zero.astype(dtype)[:, None]
        whole: Array = (values * self.scale.astype(dtype)[:, None]).reshape(-1, columns)
        return whole[self.skipped : self.skipped + rows]

    def multiplied(self, x: Array, precision: lax.Precision) -> Array:
        """x: [tokens, rows] → x · matrix, [tokens, columns] in float32.

        With few tokens one sum a group, which is scaled before all are added; with many the matrix is dequantized
        first. Servers do the same: a kernel of its own for steps, and a copy of the matrix for prompts.
        """
        product = partial(jnp.einsum, precision=precision, preferred_element_type=jnp.float32)
        groups, size, _ = self.values.shape
        tokens, missing = len(x), groups * size - self.shape[0]
        if tokens >= size * FEWEST_TOKENS:
            return product("tr,rc->tc", x, self.dequantized(x.dtype))
        if missing:
            x = jnp.pad(x, ((0, 0), (self.skipped, missing - self.skipped)))
        parts, scale = x.reshape(tokens, groups, size), self.scale.astype(jnp.float32)
        sums = product("tgr,grc->gtc", parts, self.values.astype(x.dtype))
        out: Array = (sums * scale[:, None]).sum(0)
        if self.zero is None:
            return out
        return out - product("tg,gc->tc", parts.sum(-1, dtype=jnp.float32), self.zero.astype(jnp.float32) * scale)


Weights = Array | Grouped
"""A matrix's values: an array, whose channels may have scales, or in groups."""


def group_size_of(matrix: Any) -> int:
    """Rows of the matrix that are cut together: a group's, or 1."""
    return matrix.group_size if isinstance(matrix, Grouped) else 1


def along(matrix: Any, dim: int, function: Callable[[Array, int, int], Array]) -> Any:
    """``function(array, axis, unit)`` of every array of a matrix, or of the one array that it is.

    ``axis`` is the array's of the matrix's rows (``dim`` 0) or columns (1), and one entry of it is ``unit`` of these.
    """
    if not isinstance(matrix, Grouped):
        return function(matrix, dim, 1)
    unit = matrix.group_size if dim == 0 else 1
    return matrix.map(lambda each: function(each, 0 if dim == 0 else each.ndim - 1, unit))
