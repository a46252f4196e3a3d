"""Weights in groups with a scale and a zero point each: which groups are possible, and who knows them."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from engines.core.dtypes import INTEGERS
from engines.core.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from engines.core.point import Point


def check_one_weight_format(point: "Point") -> None:
    """Check that all matrices of a point have ``weight_dtype`` with a scale an output, for engines that know no other.

    Raises:
        Unsupported: weights are in groups, or the embedding and the head have a format of their own.
    """
    for key, instead in (("weight_group_size", "a scale for each output"), ("head_dtype", "weight_dtype everywhere")):
        if getattr(point, key) is not None:
            raise Unsupported(
                f"{key}={getattr(point, key)}: engine={point.engine} runs {instead} alone; leave {key} out, "
                "or use engine=analytic, compiled or jax"
            )


def check_groups(group_size: int, rows: Mapping[str, float], where: str = "") -> None:
    """Check that whole groups make up the rows (inputs) of each matrix, or of the part of it that ``where`` names.

    Raises:
        InvalidRequest: a number of ``rows`` is not a multiple of ``group_size``.
    """
    for name, count in rows.items():
        if count % group_size:
            whole = _largest_divisor(count, group_size - 1)
            remedy = "use fewer ranks" if whole is None else f"use a divisor, such as {whole}"
            raise InvalidRequest("weight_group_size", group_size, f"does not divide {name} = {count:g}{where}", remedy)


def _largest_divisor(count: float, most: int) -> int | None:
    """The largest divisor of ``count`` up to ``most``, or None where ``count`` is no whole number.

    Divisors come in pairs about the root, so that a group size of any magnitude is answered at once.
    """
    if count != int(count):
        return None
    small = [size for size in range(1, math.isqrt(int(count)) + 1) if count % size == 0]
    return max((size for each in small for size in (each, int(count) // each) if size <= most), default=None)


def check_point_groups(point: "Point") -> None:
    """Check that a point's groups divide every matrix, and a GPU's part of it.

    Raises:
        InvalidRequest: they do not, or its weights are not integers.
    """
    if point.weight_group_size is None:
        return
    if point.weight_dtype not in INTEGERS:
        raise InvalidRequest(
            "weight_group_size",
            point.weight_group_size,
            f"groups integers, and weight_dtype={point.weight_dtype}",
            f"use weight_dtype={' or '.join(INTEGERS)}, or leave it out",
        )
    model, ranks = point.model, point.tensor_degree if point.chip.kind == "gpu" else 1
    attention = model.num_heads * model.head_dim
    check_groups(point.weight_group_size, {"d_model": model.d_model, "heads · head_dim": attention})
    check_groups(point.weight_group_size, {"d_ff": model.d_ff})
    if ranks > 1:
        parts = {"heads · head_dim": attention / ranks, "d_ff": model.d_ff / ranks}
        check_groups(point.weight_group_size, parts, f" on each of tensor_parallel={ranks} ranks")
