"""Weights in groups, each with a scale of its own: where they may be, and who does not run them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engines.core.dtypes import INTEGERS
from engines.core.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from engines.core.point import Point


def check_groups_of(point: "Point") -> None:
    """Check that a point's groups are of integers, and whole in every matrix and on each rank of GPUs.

    Raises:
        InvalidRequest: they are not.
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
    split = {"heads · head_dim": model.num_heads * model.head_dim, "d_ff": model.d_ff}
    check_groups(point.weight_group_size, {"d_model": model.d_model, **split})
    if ranks > 1:
        parts = {name: rows / ranks for name, rows in split.items()}
        check_groups(point.weight_group_size, parts, f" on each of tensor_parallel={ranks} ranks")


def check_groups(group_size: int, rows: Mapping[str, float], where: str = "") -> None:
    """Check that whole groups make up the rows (inputs) of each matrix, or of the part of it that ``where`` names.

    Raises:
        InvalidRequest: a number of ``rows`` is not a multiple of ``group_size``.
    """
    for name, count in rows.items():
        if count % group_size:
            whole = max((size for size in range(1, group_size) if count % size == 0), default=None)
            remedy = "use fewer ranks" if whole is None else f"use a divisor, such as {whole}"
            raise InvalidRequest("weight_group_size", group_size, f"does not divide {name} = {count:g}{where}", remedy)


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
