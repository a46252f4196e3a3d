"""The projections of a layer: matmuls with its matrices, their scales and biases.

An input projection all-gathers x over the feed-forward's axes, multiplies, and reduce-scatters columns over the axes of
E; an output projection does the reverse (Pope et al. 2022, section 3.2). The plan decides which axes those are, and
thus which collectives run.
"""

import operator
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from engines.transformer.comm.collective_matmul import combined, matmul_in, matmul_out, project, project_plain
from engines.transformer.comm.collectives import all_gather, local_shard
from engines.transformer.params.fusion import matmul_widths
from engines.transformer.params.tree import Matrix
from engines.transformer.partition.constraint import (
    constrain,
    made_columns,
    matrix_in_use,
    operand,
    product,
    projection_of,
    read_columns,
    read_stream,
    stream_behind,
)
from engines.transformer.partition.plan import Plan

Multiply = Callable[..., Array]
"""Signature of :func:`engines.transformer.comm.collective_matmul.project`."""


def project_in(plan: Plan, matrix: Matrix, x: Array) -> list[Array]:
    """x: [tokens, E.residual] → the parts of :func:`matmul_widths`: [tokens, chunks.column, width] each."""
    with jax.named_scope(f"{projection_of(matrix.parts)}.in"):
        return _project_in(plan, matrix, x)


def _project_in(plan: Plan, matrix: Matrix, x: Array) -> list[Array]:
    widths = matmul_widths(plan, matrix.parts)
    cuts = list(pairwise(accumulate(widths, initial=0)))
    x = read_stream(plan, x, matrix.parts)
    if plan.separates_tensors:
        return _tensor_by_tensor(plan, matrix, x, cuts, project)
    out = project(plan, matmul_in(plan)._replace(told=matrix_in_use(plan, matrix.parts, "in")), x, matrix.values)
    out = product(plan, out, matrix.parts, "in")
    out = constrain(plan, out.reshape(out.shape[0], -1, sum(widths)), made_columns(matrix.parts))
    for vector, combine in column_vectors(matrix):
        out = combine(out, local_columns(plan, vector)).astype(x.dtype)
    return [out[..., start:stop] for start, stop in cuts]


def project_attention(plan: Plan, matrix: Matrix, x: Array) -> list[Array]:
    """Only attention's part of a fused input projection (q and k | v), with plain collectives."""
    cuts = list(pairwise(accumulate(matmul_widths(plan, matrix.parts), initial=0)))[:2]
    x = read_stream(plan, x, matrix.parts)
    return _tensor_by_tensor(plan, matrix, x, cuts, project_plain)


def _tensor_by_tensor(
    plan: Plan, matrix: Matrix, x: Array, cuts: list[tuple[int, int]], multiply: Multiply
) -> list[Array]:
    parts = [matrix.values.slice_chunks(1, matrix.chunk_width, *cut) for cut in cuts]
    outs = [multiply(plan, matmul_in(plan), x, part).reshape(len(x), plan.local_chunks, -1) for part in parts]
    for vector, combine in column_vectors(matrix):
        whole = local_columns(plan, vector)
        of_each = [whole[:, start:stop] for start, stop in cuts]
        outs = [combine(out, each).astype(x.dtype) for out, each in zip(outs, of_each, strict=True)]
    return outs


def project_out(plan: Plan, matrix: Matrix, parts: list[Array]) -> Array:
    """Consecutive parts of each chunk's columns, [tokens, chunks.column, width] each → [tokens, E.residual]."""
    with jax.named_scope(f"{projection_of(matrix.parts)}.out"):
        return _project_out(plan, matrix, parts)


def _project_out(plan: Plan, matrix: Matrix, parts: list[Array]) -> Array:
    if plan.separates_tensors:
        cuts = pairwise(accumulate([part.shape[2] for part in parts], initial=0))
        terms = [unreduced(plan, matrix, part, cut) for part, cut in zip(parts, cuts, strict=True)]
        return reduced(plan, matrix, sum(terms[1:], terms[0]), parts[0].dtype)
    x = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
    x = constrain(plan, x, read_columns(matrix.parts))
    x = constrain(plan, x.reshape(x.shape[0], -1), operand(matrix.parts, "out"))
    matmul = matmul_out(plan)._replace(told=matrix_in_use(plan, matrix.parts, "out"))
    if plan.axes.summed and matrix.scale is not None:
        # Every chip applies the scale to its own terms: part of the matmul, and not of what follows the sum.
        out = project_plain(plan, matmul, x, matrix.values, factor=local_embed(plan, matrix.scale))
        return scaled(plan, replace(matrix, scale=None), out)
    return scaled(plan, matrix, product(plan, project(plan, matmul, x, matrix.values), matrix.parts, "out"))


def unreduced(plan: Plan, matrix: Matrix, x: Array, cut: tuple[int, int], multiply: Multiply = project) -> Array:
    """x: [tokens, chunks, width], columns ``cut`` of each chunk → [tokens, E] {unreduced over ffn}, float32."""
    part = matrix.values.slice_chunks(0, matrix.chunk_width, *cut)
    return multiply(plan, matmul_out(plan)._replace(scattered=(), summed=()), x.reshape(len(x), -1), part, jnp.float32)


def reduced(plan: Plan, matrix: Matrix, x: Array, dtype: Any) -> Array:
    """x: [tokens, E] {unreduced over ffn} → [tokens, E.residual] in ``dtype``."""
    return scaled(plan, matrix, combined(plan, matmul_out(plan), x.astype(dtype)))


def scaled(plan: Plan, matrix: Matrix, x: Array) -> Array:
    """x: [tokens, E.residual] times the matrix's output scales, plus its bias, where it has them."""
    dtype = x.dtype
    if matrix.scale is not None:
        x = (x * local_embed(plan, matrix.scale)).astype(dtype)
    if matrix.bias is not None:
        x = (x + local_embed(plan, matrix.bias)).astype(dtype)
    return constrain(plan, x, stream_behind(matrix.parts))


def column_vectors(matrix: Matrix) -> list[tuple[Array, Any]]:
    """The scales and biases that an input matrix has, each with the operator that applies it."""
    known = (matrix.scale, operator.mul), (matrix.bias, operator.add)
    return [(vector, combine) for vector, combine in known if vector is not None]


def local_embed(plan: Plan, vector: Array) -> Array:
    """This chip's E.residual of a replicated vector [E]."""
    return local_shard(vector, plan.axes.residual, 0, plan.axes.size(plan.axes.residual))


def local_columns(plan: Plan, vector: Array) -> Array:
    """[chunks.all, width] → [chunks.column, width]."""
    gathered, cut = plan.axes.vector
    return local_shard(all_gather(vector, gathered, 0), cut, 0, plan.axes.size(cut))
