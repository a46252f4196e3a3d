"""One matrix of every expert of a chip, and the ways to multiply rows with it."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.core.dtypes import ACTIVATION_DTYPES
from engines.transformer.comm.collective_matmul import MATMUL, few_rows
from engines.transformer.layers.expert_rows import group_of_row
from engines.transformer.params.grouped import Grouped
from engines.transformer.params.quantize import dequantize, einsum, quantize, quantize_tokens, stored_dtype
from engines.transformer.params.tree import Stacked
from engines.transformer.partition.plan import Plan

FEW_ROWS: Final = 8
PART_ROWS: Final = 64
CACHED_PART_ROWS: Final = 128
SMALLEST_PART: Final = 16
"""Up to so many rows a CPU multiplies with parts of a matrix: of so many of its rows, for more rows of so many, and no
fewer than so many."""
CACHED_BYTES: Final = 1 << 20
"""An expert's matrix beyond this is in no cache of a core as a whole."""

Product = Callable[[Array, Array], Array]
"""Of rows and the number of one expert."""


class ExpertMatrix(NamedTuple):
    """One matrix of every expert of a chip: its [columns] products, times ``scale``, plus ``bias``.

    ``scale`` and ``bias`` are [experts, columns].
    """

    plan: Plan
    values: Stacked
    scale: Array | None
    bias: Array | None

    @property
    def columns(self) -> int:
        """Columns of the matrix."""
        width: int = self.values.stack.shape[-1]
        return width

    def with_vectors(self, out: Array, of: Callable[[Array], Array]) -> Array:
        """Products times their scale, plus their bias; ``of`` picks each row's."""
        out = out if self.scale is None else out * of(self.scale)
        return out if self.bias is None else out + of(self.bias)

    def all_rows(self, rows: Array) -> Array:
        """[experts, rows, in] → [experts, rows, columns], float32."""
        x, factor = quantize_tokens(self.plan, rows, ())
        whole = self.values.experts()
        if isinstance(whole, Grouped):
            whole = _dequantized(whole, rows.dtype)
        out = dequantize(einsum(self.plan, "nri,nio->nro", x, whole, jnp.float32), factor)
        return self.with_vectors(out, lambda vector: vector[:, None])

    def sorted_rows(self, rows: Array, sizes: Array) -> Array:
        """[rows, in], sorted by expert → [rows, columns], float32; those behind the last expert's mean nothing."""
        plan, whole = self.plan, self.values.experts()
        narrow, factor = quantize_tokens(plan, rows, ())
        if isinstance(whole, Grouped):
            whole = _dequantized(whole, rows.dtype)
        elif plan.act_dtype == "float8_e4m3" and whole.dtype == stored_dtype(plan.act_dtype):
            narrow, factor = quantize(rows, plan.act_dtype)
        elif narrow.dtype != jnp.int8:
            whole = whole.astype(rows.dtype)
        kind = jnp.int32 if narrow.dtype == jnp.int8 else jnp.float32
        precision = lax.Precision.HIGHEST if plan.act_dtype == "float32" else lax.Precision.DEFAULT
        out = lax.ragged_dot(narrow, whole, sizes, precision=precision, preferred_element_type=kind)
        expert = jnp.minimum(group_of_row(sizes, jnp.arange(len(rows), dtype=jnp.int32)), len(sizes) - 1)
        return self.with_vectors(dequantize(out.astype(jnp.float32), factor), lambda vector: vector[expert])

    @property
    def is_large(self) -> bool:
        """Whether a CPU multiplies the matrix of one expert in parts, of any rows, and so reads it once from memory."""
        stack = self.values.stack
        return not isinstance(stack, Grouped) and math.prod(stack.shape[-2:]) * stack.dtype.itemsize > CACHED_BYTES

    def one_expert(self, rows: Array, expert: Array) -> Array:
        """[rows, in] of one expert → [rows, columns], float32, its matrix read at once."""
        return self._of_one(self._whole, rows, expert)

    def in_parts(self, rows: Array, expert: Array, any_rows: bool = False) -> Array:
        """The same, as a CPU multiplies: few rows with parts of the matrix, ``any_rows`` likewise."""
        return self._of_one(partial(self._in_parts, any_rows=any_rows), rows, expert)

    def _of_one(self, product: Product, rows: Array, expert: Array) -> Array:
        x, factor = quantize_tokens(self.plan, rows, ())
        return self.with_vectors(dequantize(product(x, expert), factor), lambda vector: vector[expert])

    def _whole(self, x: Array, expert: Array) -> Array:
        """x: [rows, in] times the matrix of one expert, in float32."""
        return few_rows(self.plan, MATMUL, x, self.values.expert(expert), jnp.float32)

    def _in_parts(self, x: Array, expert: Array, any_rows: bool) -> Array:
        """x: [rows, in] times the matrix of one expert, in float32.

        Of few rows, and of any, a part of the matrix's rows at a time: XLA:CPU copies what a loop slices from a stack,
        and a part stays in a core's cache until it is multiplied. A GPU would start two kernels for every part.
        """
        inward = self.values.stack.shape[-2]
        few = len(x) <= FEW_ROWS
        part = math.gcd(inward, PART_ROWS if few else CACHED_PART_ROWS)
        plain = self.plan.act_dtype in ACTIVATION_DTYPES and not isinstance(self.values.stack, Grouped)
        if not (few or any_rows) or part < SMALLEST_PART or not plain:
            return self._whole(x, expert)

        def add(number: Array, total: Array) -> Array:
            matrix = self.values.expert_rows(expert, number * part, part)
            mine = lax.dynamic_slice_in_dim(x, number * part, part, 1)
            summed: Array = total + few_rows(self.plan, MATMUL, mine, matrix, jnp.float32)
            return summed

        nothing = jnp.zeros((len(x), self.columns), jnp.float32)
        product: Array = lax.fori_loop(0, inward // part, add, nothing)
        return product


def _dequantized(matrices: Grouped, dtype: Any) -> Array:
    whole: Array = jax.vmap(lambda each: each.dequantized(dtype))(matrices)
    return whole
