"""A plan's parameters: their shapes, their shardings on a mesh, and their arrays, made from a source of values.

Describing them needs no device; each device generates or reads only its own part. A projection's tensors are fused into
one matrix, chip by chip (:mod:`params.fusion`), so that it takes one matmul and one collective (Pope et al. 2022,
sections 3.4 and 3.5).

==========================  ===========================  =============================================
matrix                      values                       what
==========================  ===========================  =============================================
``embedding``, ``lm_head``  [vocab, E]                   split like a matrix with the vocabulary as columns
a projection's ``inputs``   [layers, E, chips · width]   columns of every chunk: q | k | v, gate | up, one, or all
a projection's ``outputs``  [layers, chips · width, E]   rows of every chunk: o, wo, or both
==========================  ===========================  =============================================

With ``weight_group_size`` a projection's values are in groups of rows (:mod:`params.grouped`), whose scales and zero
points are cut as the values are.

Chunks and their widths are one dimension of a matrix: a TPU stores an array in tiles of its last two dimensions, and
merging dimensions later would copy the weights in every layer. Biases of inputs are [layers, chips, width]; all other
vectors are replicated.
"""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.experimental.layout import Format
from jax.sharding import Mesh, NamedSharding
from numpy.typing import NDArray

from engines.transformer.params.describe import described
from engines.transformer.params.described import Described
from engines.transformer.params.memory_layout import array_format, relayout
from engines.transformer.params.quantize import stored_dtype
from engines.transformer.params.tree import Matrix, Parameters, map_matrices
from engines.transformer.partition.plan import Plan
from engines.weights.formats import rows_at_once
from engines.weights.random import Source


def parameter_specs(plan: Plan) -> Parameters:
    """The PartitionSpec of every array."""
    specs: Parameters = jax.tree.map(lambda each: each.spec, described(plan))
    return specs


def abstract_parameters(plan: Plan, mesh: Mesh) -> Parameters:
    """Shapes, dtypes and shardings without values, for any mesh, whether its devices are present or not."""

    def abstract(each: Described) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(each.shape, stored_dtype(each.dtype), sharding=placement(plan, mesh, each))

    shapes: Parameters = jax.tree.map(abstract, described(plan))
    if not plan.offloads:
        return shapes
    return replace(shapes, layers=tuple(map_matrices(_on_host, each) for each in shapes.layers))


def _on_host(matrix: Matrix) -> Matrix:
    """A described matrix whose values are in host memory, in the same memory layout."""

    def moved(each: Any) -> jax.ShapeDtypeStruct:
        sharding = each.sharding.with_memory_kind("pinned_host")
        placed = sharding if each.format.layout is None else Format(each.format.layout, sharding)
        return jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=placed)

    return replace(matrix, values=jax.tree.map(moved, matrix.values))


def make_parameters(plan: Plan, mesh: Mesh, source: Source) -> Parameters:
    """The arrays on the mesh's devices. Each device's part is made from its own slice of the canonical tensors."""
    parameters: Parameters = make_arrays(plan, mesh, described(plan, source))
    return parameters


def make_arrays(plan: Plan, mesh: Mesh, descriptions: Any) -> Any:
    """A pytree of :class:`Described`, all parameters or those of a layer, as arrays on the mesh's devices."""

    def made(each: Described) -> jax.Array:
        # Computing a quantized matrix also computes its scales, which are kept until they are requested themselves.
        step = each.shape[0] if each.at_once else rows_at_once(each.shape)

        def part(index: Any) -> NDArray[Any]:
            first, *rest = (slice(*at.indices(size)[:2]) for at, size in zip(index, each.shape, strict=True))
            block = np.empty([at.stop - at.start for at in (first, *rest)], stored_dtype(each.dtype))
            # Values are float32 up to here: a block of rows at a time, so that the host never holds a whole float32
            # matrix.
            for start in range(first.start, first.stop, step):
                stop = min(start + step, first.stop)
                block[start - first.start : stop - first.start] = each.fill((slice(start, stop), *rest))
            return block

        array = jax.make_array_from_callback(each.shape, NamedSharding(mesh, each.spec), part)
        return relayout(array, placement(plan, mesh, each))

    return jax.tree.map(made, descriptions)


def placement(plan: Plan, mesh: Mesh, each: Described) -> Format | NamedSharding:
    """Sharding and memory layout of an array: row-major, as the decode loop reads it.

    Gathered matrices are split into tensors at columns that are not a multiple of a tile: the device chooses their
    layout.
    """
    if plan.axes.batch:
        return NamedSharding(mesh, each.spec)
    return array_format(mesh, each.spec, range(len(each.shape)))
