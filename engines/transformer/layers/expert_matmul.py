"""The feed-forward of a chip's experts: each row with the matrices of its own expert.

Four ways, on the same matrices (:mod:`layers.expert_ways` chooses):

- ``buffers``: as many rows for every expert, one batched matmul.
- ``one``: the same rows for one expert.
- ``ragged``: rows sorted by expert, ``lax.ragged_dot``, which a TPU runs as one kernel. Narrow weights of all experts
  are converted before it.
- ``blocks``: a loop over blocks of sorted rows, each of one expert, for devices on which ``ragged_dot`` multiplies
  every row with every expert.

All but the first read the matrices of those experts alone that have rows.
"""

import math
from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Final

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.core.routing import balanced_scope, distinct_experts, expected_blocks, turns_scope
from engines.transformer.comm.collectives import all_gather, as_bytes, axis_index, reduce_scatter
from engines.transformer.layers.expert_matrix import FEW_ROWS, ExpertMatrix, Product
from engines.transformer.layers.mlp import activate
from engines.transformer.params.grouped import Grouped, Weights
from engines.transformer.params.tree import ExpertParameters, Matrix, Stacked
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan

LARGEST_BLOCK: Final = 64
"""Rows of a block at most: with more, a CPU's matmuls are no faster a row."""


class ExpertFeedForward:
    """The feed-forwards of a chip's experts in use: gathered where the layout gathers weights.

    Results are partial sums over the axes that split F of an expert.
    """

    def __init__(self, plan: Plan, w: ExpertParameters) -> None:
        self.plan, self.axes = plan, plan.experts
        embed, ffn = plan.experts.gathered
        # A bias is part of one chip's terms alone.
        self.inward = self._side(w.inputs, (embed, ffn), ffn, plan.experts.embed)
        self.outward = self._side(w.outputs, (ffn, embed), embed, plan.experts.ffn)

    def _side(self, matrix: Matrix, gathered: tuple[Axes, Axes], columns: Axes, summed: Axes) -> ExpertMatrix:
        values = matrix.values
        if gathered[0] or gathered[1]:
            values = Stacked(_gathered(values.experts(), *gathered), 0)
        scale, bias = (
            None if each is None else all_gather(each.reshape(len(each), -1), columns, 1)
            for each in (matrix.scale, matrix.bias)
        )
        if bias is not None and summed:
            bias = jnp.where(axis_index(summed) == 0, bias, 0)
        return ExpertMatrix(self.plan, values, scale, bias)

    def of_buffers(self, rows: Array, weights: Array | None = None) -> Array:
        """[experts, rows, E.embed] → the same {unreduced over ffn}, in the dtype of the rows.

        ``weights`` [experts, rows] multiply the results before they are rounded to it.
        """
        hidden = self._between(self.inward.all_rows(rows).astype(rows.dtype))
        made = self.outward.all_rows(hidden)
        return (made if weights is None else made * weights[..., None]).astype(rows.dtype)

    def in_turn(self, number: Array) -> "ExpertFeedForward":
        """The same in a turn of a loop, which reads the stacks of layers anew.

        A matrix that does not depend on the turn would be sliced before the loop, that is copied whole.
        """
        same = copy(self)
        for name, side in (("inward", self.inward), ("outward", self.outward)):
            layer, _ = lax.optimization_barrier((jnp.asarray(side.values.layer, jnp.int32), number))
            setattr(same, name, side._replace(values=Stacked(side.values.stack, layer)))
        return same

    def of_one(self, rows: Array, expert: Array) -> Array:
        """[rows, E.embed] → what one expert makes of them {unreduced over ffn}, float32."""
        hidden = self._between(self.inward.one_expert(rows, expert).astype(rows.dtype))
        return self.outward.one_expert(hidden, expert)

    def of_sorted(self, rows: Array, sizes: Array, most: int) -> Array:
        """[rows, E.embed], sorted by expert → the same {unreduced over ffn}; ``most`` rows are of one expert at most.

        That is the number of tokens. What stands behind the last expert's rows means nothing.
        """
        sides = (self.inward, self.outward)

        experts, expected = self.plan.model.experts, self.plan.local_experts
        assert experts is not None
        hit = float(distinct_experts(experts.count, experts.per_token, most)) / experts.count * expected
        scope = balanced_scope(most * experts.per_token / self.axes.shards, hit)

        def ragged(side: ExpertMatrix, rows: Array, sizes: Array) -> Array:
            with jax.named_scope(scope):
                return side.sorted_rows(rows, sizes).astype(rows.dtype)

        size = block_rows(len(rows), expected, most)
        filled = expected_blocks(experts.count, experts.per_token, most, size) / experts.count * expected
        blocks_of = partial(in_blocks, size=size, turns=math.ceil(filled))

        def blocks(side: ExpertMatrix, product: Product, rows: Array, sizes: Array) -> Array:
            return blocks_of(rows, sizes, side.columns, product)

        def matmul(side: ExpertMatrix, rows: Array) -> Array:
            cpu, default = (partial(blocks, side, product) for product in (side.in_parts, side.one_expert))
            out: Array = lax.platform_dependent(rows, sizes, tpu=partial(ragged, side), cpu=cpu, default=default)
            return out

        def whole(rows: Array, sizes: Array) -> Array:
            return ragged(sides[1], self._between(ragged(sides[0], rows, sizes)), sizes)

        def each_block(products: Sequence[Product], rows: Array, sizes: Array, fitting: bool = False) -> Array:
            def both(part: Array, expert: Array) -> Array:
                return products[1](self._between(products[0](part, expert).astype(part.dtype)), expert)

            return blocks_of(rows, sizes, sides[1].columns, both, fitting=fitting)

        if self.axes.embed:
            return matmul(sides[1], self._between(matmul(sides[0], rows)))
        large = all(side.is_large for side in sides)
        cpu = partial(each_block, [partial(side.in_parts, any_rows=large) for side in sides], fitting=large)
        default = partial(each_block, [side.one_expert for side in sides])
        out: Array = lax.platform_dependent(rows, sizes, tpu=whole, cpu=cpu, default=default)
        return out

    def _between(self, columns: Array) -> Array:
        """Products of the inputs […, columns.ffn] {unreduced over embed} → hidden columns […, F.ffn]."""
        embed, dim = self.axes.embed, columns.ndim - 1
        columns = reduce_scatter(columns, embed, dim)
        count = len(self.plan.model.ffn.inputs)
        chunks = max(1, self.axes.chunks // self.plan.axes.size(self.axes.ffn + embed))
        apart = columns.reshape(*columns.shape[:-1], chunks, count, -1)
        hidden = activate(self.plan, [apart[..., each, :] for each in range(count)])
        return all_gather(hidden.reshape(*columns.shape[:-1], -1), embed, dim)


def block_rows(rows: int, experts: int, most: int) -> int:
    """Rows of a block, a power of two: at least twice the mean of an expert, so that most of them have one block."""
    wanted = min(most, max(8, -(-2 * rows // experts)))
    return min(LARGEST_BLOCK, 1 << (wanted - 1).bit_length())


def in_blocks(
    rows: Array, sizes: Array, columns: int, product: Product, *, size: int, turns: int, fitting: bool = False
) -> Array:
    """[rows, in], sorted by expert → [rows, columns] in the rows' dtype; ``product`` (block, expert) is one block's.

    A block has ``size`` rows, and a balanced router fills ``turns`` of them. One that reaches beyond its expert's rows
    computes some of the next expert's, whose own block writes them later. Where blocks are ``fitting``, one of few rows
    is no larger than the next power of two from :data:`FEW_ROWS`.
    """
    blocks = -(-sizes // size)
    last, starts = jnp.cumsum(blocks), jnp.cumsum(sizes) - sizes
    padded = jnp.pad(rows, ((0, size), (0, 0)))
    least = FEW_ROWS if fitting and size > FEW_ROWS else size
    choices = [least << each for each in range((size // least).bit_length())]

    def one(number: Array, out: Array) -> Array:
        expert = (number >= last).sum(dtype=jnp.int32)
        done = (number - last[expert] + blocks[expert]) * size
        start = starts[expert] + done

        def of(count: int, out: Array) -> Array:
            block = lax.dynamic_slice_in_dim(padded, start, count, 0)
            made: Array = lax.dynamic_update_slice_in_dim(out, product(block, expert).astype(out.dtype), start, 0)
            return made

        if len(choices) == 1:
            return of(size, out)
        smaller = jnp.array(choices[:-1], jnp.int32)
        index = (sizes[expert] - done > smaller).sum(dtype=jnp.int32)
        chosen: Array = lax.switch(index, [partial(of, count) for count in choices], out)
        return chosen

    with jax.named_scope(turns_scope(turns)):
        out: Array = lax.fori_loop(0, last[-1], one, jnp.zeros((len(padded), columns), rows.dtype))
    return out[: len(rows)]


def _gathered(matrices: Weights, rows: Axes, columns: Axes) -> Weights:
    """[experts, rows.rows, columns.columns] → [1, experts, rows, columns]: a stack of this one layer."""

    def whole(each: Array) -> Array:
        for axes, dim in ((rows, 1), (columns, each.ndim - 1)):
            if axes:
                each = as_bytes(each, partial(lax.all_gather, axis_name=axes, axis=dim, tiled=True))
        return each[None]

    return matrices.map(whole) if isinstance(matrices, Grouped) else whole(matrices)
