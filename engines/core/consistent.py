"""Are the values of a point consistent with each other?"""

from typing import TYPE_CHECKING, Final

from engines.core.errors import InvalidRequest
from engines.core.layout import LAYOUTS, attention_batch_axes, axes_size
from engines.core.weight_groups import check_point_groups

if TYPE_CHECKING:
    from engines.core.point import Point

IMPORTED: Final = "imported"
"""The engine of rows that another harness measured, the only one with points of the phase ``serve``."""


def check_together(point: "Point") -> None:
    """What :meth:`engines.core.point.Point.check` checks.

    Raises:
        InvalidRequest: two values contradict each other.
    """
    if point.phase == "serve" and point.engine != IMPORTED:
        raise InvalidRequest(
            "phase",
            point.phase,
            "is a server under load, which is only imported from other harnesses",
            "use phase=prefill, decode or generate",
        )
    point.model.check_phase(point.phase)
    mesh = point.slice().mesh_shape
    if point.num_chips == 1:
        for key in ("ffn_layout", "attn_sharding"):
            if getattr(point, key) != "auto":
                raise InvalidRequest(
                    key,
                    getattr(point, key),
                    "splits a model over several chips, and num_chips=1",
                    f"use {key}=auto or more chips",
                )
    gathered = "" if point.ffn_layout == "auto" else LAYOUTS[point.ffn_layout].gathered
    if point.batch_size % axes_size(gathered, mesh):
        raise InvalidRequest(
            "batch_size",
            point.batch_size,
            f"does not split over the {axes_size(gathered, mesh)} shards of ffn_layout={point.ffn_layout}",
            f"use a multiple of {axes_size(gathered, mesh)}, or ffn_layout=ws_2d",
        )
    if point.attn_sharding == "batch" and not gathered and attention_batch_axes(point.batch_size, mesh) is None:
        least = min(axes_size(axes, mesh) for axes in ("z", "yz", "xyz") if axes_size(axes, mesh) > 1)
        raise InvalidRequest(
            "batch_size",
            point.batch_size,
            f"does not split over any axes of mesh_shape={list(mesh)} for attn_sharding=batch",
            f"use a multiple of {least}, or attn_sharding=heads",
        )
    _check_parallel_degrees(point)
    check_point_groups(point)
    tokens = point.input_len + point.output_len
    if point.model.position == "learned" and tokens > point.model.max_positions:
        raise InvalidRequest(
            "input_len" if point.input_len >= point.output_len else "output_len",
            max(point.input_len, point.output_len),
            f"makes {tokens} tokens and {point.model.name} has {point.model.max_positions} learned positions",
            f"keep input_len + output_len within {point.model.max_positions}",
        )
    if point.runtime is not None:
        point.runtime.check(point)


def _check_parallel_degrees(point: "Point") -> None:
    if point.tensor_parallel is None and point.pipeline_parallel is None:
        return
    if point.chip.kind == "tpu":
        key = "tensor_parallel" if point.tensor_parallel is not None else "pipeline_parallel"
        raise InvalidRequest(
            key, getattr(point, key), f"is a GPU setting and hw={point.chip.name}", "use ffn_layout and mesh_shape"
        )
    if point.tensor_degree * point.pipeline_degree != point.num_chips:
        key = "tensor_parallel" if point.tensor_parallel is not None else "pipeline_parallel"
        raise InvalidRequest(
            key,
            getattr(point, key),
            f"times the other degree is not num_chips={point.num_chips}",
            "tensor_parallel × pipeline_parallel = num_chips",
        )
