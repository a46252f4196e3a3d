"""One array, or the arrays of one matrix, as descriptions: shapes, dtypes, shardings and how to fill them."""

from dataclasses import dataclass

from jax.sharding import PartitionSpec as P

from engines.core.dtypes import LARGEST
from engines.transformer.params.fill import Fill, Groups, channel_scale, merged, quantized
from engines.transformer.params.grouped import Grouped, steps
from engines.transformer.params.quantize import stored_dtype
from engines.transformer.params.tree import Matrix, Parts


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


def matrix_of(
    shape: tuple[int, ...],
    fill: Fill,
    *,
    dtype: str,
    spec: P,
    scale_spec: P,
    contracted: tuple[int, ...],
    merged_axis: int | None = None,
    bias: Described | None = None,
    parts: Parts = (),
) -> Matrix:
    """A matrix in the format ``dtype``, with a scale for each output channel where that needs one.

    ``merged_axis`` of ``shape`` and the next are merged into one dimension; ``spec`` is that of the result.
    """
    axis = merged_axis
    merged_shape = shape if axis is None else (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    if dtype not in LARGEST:
        return Matrix(Described(merged_shape, dtype, spec, merged(shape, axis, fill)), bias, parts=parts)
    scale = channel_scale(shape, contracted, fill, LARGEST[dtype])
    scale_shape = tuple(size for each, size in enumerate(shape) if each not in contracted)
    rounded = merged(shape, axis, quantized(contracted, fill, scale, dtype.startswith("int")))
    return Matrix(
        Described(merged_shape, dtype, spec, rounded, at_once=True),
        bias,
        Described(scale_shape, "float32", scale_spec, scale),
        parts,
    )


def grouped_of(
    shape: tuple[int, ...], fill: Fill, rows: int, size: int, *, kinds: tuple[str, str], spec: P, merged_axis: int
) -> Grouped:
    """A stack of matrices in groups of ``size`` along the axis ``rows`` of ``shape``.

    ``kinds`` are the formats of weights and zero points, and of scales; ``merged_axis`` and ``spec`` are as those of
    :func:`matrix_of`, the groups' own rows being in no spec.
    """
    weights, scales = kinds
    groups = Groups(fill, rows, size, steps(weights), stored_dtype(scales))
    fewer = (*shape[:rows], shape[rows] // size, *shape[rows + 1 :])
    blocks = (*fewer[: rows + 1], size, *fewer[rows + 1 :])

    def part(whole: tuple[int, ...], dtype: str, made: Fill) -> Described:
        at = merged_axis + 1 if whole is blocks and rows < merged_axis else merged_axis
        flat = (*whole[:at], whole[at] * whole[at + 1], *whole[at + 2 :])
        cut = P(*spec[:2], None, *spec[2:]) if whole is blocks else spec
        return Described(flat, dtype, cut, merged(whole, at, made))

    return Grouped(
        part(blocks, weights, groups.values), part(fewer, scales, groups.scales), part(fewer, weights, groups.zeros)
    )
