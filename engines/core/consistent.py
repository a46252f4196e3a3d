"""Are the values of a point consistent with each other?"""

from typing import TYPE_CHECKING

from engines.core.batch_checks import check_batch
from engines.core.errors import InvalidRequest
from engines.core.layout import LAYOUTS, attention_batch_axes, axes_size
from engines.core.needs import check_needs
from engines.core.serve_checks import check_serve
from engines.core.shardings import Shardings
from engines.core.slice import MeshShape
from engines.core.speculative_keys import check_adaptive
from engines.core.weight_groups import check_point_groups

if TYPE_CHECKING:
    from engines.core.point import Point


def check_together(point: "Point") -> None:
    """What :meth:`engines.core.point.Point.check` checks.

    Raises:
        InvalidRequest: two values contradict each other.
    """
    check_serve(point)
    point.model.check_phase(point.phase)
    check_needs(point)
    _check_architecture(point)
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
    _check_shardings(point, mesh)
    check_point_groups(point)
    check_batch(point)
    check_adaptive(point)
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


def _check_architecture(point: "Point") -> None:
    """Attention is split over what the model has of it, and experts over what the chip has."""
    model = point.model
    if model.kv_latent_dim is not None and point.attn_sharding == "heads":
        raise InvalidRequest(
            "attn_sharding",
            point.attn_sharding,
            f"splits a cache of heads, and model={model.name} caches one latent vector a token",
            "use replicated (query heads are split, every chip holds the cache), batch or sequence",
        )
    if model.kv_latent_dim is None and point.attn_sharding == "replicated":
        raise InvalidRequest(
            "attn_sharding",
            point.attn_sharding,
            f"is about latent attention and model={model.name} has none",
            "use heads, batch or sequence",
        )
    if point.expert_axes != "auto" and point.chip.kind == "gpu":
        raise InvalidRequest(
            "expert_axes", point.expert_axes, f"is a TPU setting and hw={point.chip.name}", "use expert_parallel"
        )
    for key in ("expert_parallel", "data_parallel"):
        degree = getattr(point, key)
        if degree is None:
            continue
        if point.chip.kind == "tpu":
            raise InvalidRequest(
                key, degree, f"is a GPU setting and hw={point.chip.name}", "use expert_axes and attn_sharding"
            )
        if point.num_chips % degree:
            raise InvalidRequest(
                key, degree, f"does not divide num_chips={point.num_chips}", "use a divisor of the chips"
            )
    if (
        point.expert_parallel is not None
        and model.num_experts is not None
        and model.num_experts % point.expert_parallel
    ):
        raise InvalidRequest(
            "expert_parallel",
            point.expert_parallel,
            f"does not divide num_experts={model.num_experts} of model={model.name}",
            "every GPU holds the same number of experts",
        )


def _check_shardings(point: "Point", mesh: MeshShape) -> None:
    """Shardings of every operator leave no layout to choose, and the compiler partitions by them."""
    if point.planner == "alpa" or point.shardings is not None:
        key = "planner" if point.shardings is None else "shardings"
        for other, allowed in (
            ("ffn_layout", ("auto",)),
            ("attn_sharding", ("auto",)),
            ("collectives", ("auto", "plain")),
        ):
            if getattr(point, other) not in allowed:
                raise InvalidRequest(
                    key,
                    getattr(point, key),
                    f"states what {other}={getattr(point, other)} does",
                    f"leave {other}=auto",
                )
    if point.shardings is None:
        return
    if point.partitioner != "gspmd":
        raise InvalidRequest(
            "shardings", point.shardings, "are told to the compiler, which partitions", "use partitioner=gspmd"
        )
    shardings = Shardings.parse(point.shardings)
    shardings.check(point.model)
    for name, dims in shardings.cuts:
        if any(axes_size(axis, mesh) == 1 for axis in "".join(dims)):
            raise InvalidRequest(
                "shardings",
                f"{name}:{'.'.join(dims)}",
                f"splits along an axis of one chip of mesh_shape={list(mesh)}",
                "use a plan of this mesh",
            )


def _check_parallel_degrees(point: "Point") -> None:
    if point.tensor_parallel is None and point.pipeline_parallel is None:
        return
    if point.chip.kind == "tpu" and point.pipeline_degree == 1:
        key = "tensor_parallel" if point.tensor_parallel is not None else "pipeline_parallel"
        raise InvalidRequest(
            key,
            getattr(point, key),
            f"is for GPUs and for stages of a pipeline, and hw={point.chip.name}",
            "use ffn_layout and mesh_shape, or pipeline_parallel=2 or more",
        )
    if point.tensor_degree * point.pipeline_degree != point.num_chips:
        key = "tensor_parallel" if point.tensor_parallel is not None else "pipeline_parallel"
        raise InvalidRequest(
            key,
            getattr(point, key),
            f"times the other degree is not num_chips={point.num_chips}",
            "tensor_parallel × pipeline_parallel = num_chips",
        )
