"""Descriptions of matrices in their number format, and where canonical tensors are: what describers of arrays share."""

from typing import Any

from jax.sharding import PartitionSpec as P

from engines.core.dtypes import LARGEST
from engines.transformer.params.described import Described
from engines.transformer.params.fill import merged
from engines.transformer.params.fusion import Fusion
from engines.transformer.params.grouped import Grouped
from engines.transformer.params.quantize import MX_SCALE, stored_dtype
from engines.transformer.params.tree import Matrix, Parts
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.constraint import projection_of, told
from engines.transformer.partition.plan import Plan
from engines.weights.formats import Blocks, Fill, Groups, channel_scale, quantized, steps
from engines.weights.random import Source, values


class Describer:
    """Describes arrays of a plan, whose values are those of ``source``.

    ``columns`` and ``rows`` are the axes that split a stored matrix, ``every`` all axes.
    """

    def __init__(self, plan: Plan, source: Source, fusion: Fusion | None = None) -> None:
        self.plan, self.source, self.model = plan, source, plan.model
        self.fusion = fusion or Fusion(plan, source)
        axes = plan.axes
        self.columns, self.rows, self.every = axes.stored_ffn or None, axes.stored_embed or None, axes.all or None

    def stored(self, parts: Parts, side: str) -> tuple[Axes | None, Axes | None]:
        """The axes that split a projection's matrix ``in`` or ``out`` in memory, along its rows and its columns."""
        both = told(self.plan, f"{projection_of(parts)}.{side}.weights")
        if both is None:
            return (self.rows, self.columns) if side == "in" else (self.columns, self.rows)
        return both[0] or None, both[1] or None

    def canonical(self, name: str) -> Fill:
        """The values of a tensor by its canonical name."""
        return lambda index: values(self.fusion.canonical[name], self.source, index)

    def matrix(
        self,
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
        """``merged_axis`` of ``shape`` and the next are merged into one dimension; ``spec`` is that of the result."""
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

    def projection(self, shape: tuple[int, ...], fill: Fill, *, spec: P, rows: int, **rest: Any) -> Matrix:
        """:meth:`matrix` of a layer in the weights' format, in groups along the axis ``rows`` where it has them."""
        plan, axis, size = self.plan, rest["merged_axis"], self.plan.rows_of_group
        if size is None:
            return self.matrix(shape, fill, dtype=plan.weight_dtype, spec=spec, **rest)
        sixteen = "float16" if plan.act_dtype == "float16" else "bfloat16"
        blocked = plan.weight_dtype == "mxfp4"
        groups: Groups | Blocks = (
            Blocks(fill, rows, size)
            if blocked
            else Groups(fill, rows, size, steps(plan.weight_dtype), stored_dtype(sixteen))
        )
        fewer = (*shape[:rows], shape[rows] // size, *shape[rows + 1 :])
        blocks = (*fewer[: rows + 1], size, *fewer[rows + 1 :])

        def part(whole: tuple[int, ...], dtype: str, made: Fill) -> Described:
            at = axis + 1 if whole is blocks and rows < axis else axis
            flat = (*whole[:at], whole[at] * whole[at + 1], *whole[at + 2 :])
            before = rows + 1 if rows < axis else rows
            cut = P(*spec[:before], None, *spec[before:]) if whole is blocks else spec
            return Described(flat, dtype, cut, merged(whole, at, made))

        values = Grouped(
            part(blocks, plan.weight_dtype, groups.values),
            part(fewer, MX_SCALE if blocked else sixteen, groups.scales),
            part(fewer, plan.weight_dtype, groups.zeros) if isinstance(groups, Groups) else None,
        )
        return Matrix(values, rest["bias"], parts=rest["parts"])
