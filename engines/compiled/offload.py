"""Weights and a cache in host memory in a compiled program: which points have one, and how fast they arrive."""

from typing import TYPE_CHECKING

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.offload.host_link import HOST_LINK_SHARE

if TYPE_CHECKING:
    from engines.transformer.partition.plan import Plan


def check_offload(point: Point) -> None:
    """Check that what is offloaded can be compiled for: from host memory, for a TPU.

    Raises:
        Unsupported: it is on a drive, which no compiler knows, for another chip, or for a program without layers in
            turn; or the chip's file does not state its link.
    """
    if point.offload == "nvme":
        raise Unsupported("offload=nvme: a compiler knows host memory and no drive; use offload=host")
    if not point.offloads:
        return
    asked = f"offload={point.offload} offload_kv={point.offload_kv}"
    for key, off in (("speculative", "none"), ("exit_threshold", None)):
        if getattr(point, key) != off:
            raise Unsupported(f"{key}={getattr(point, key)}: is not compiled with {asked}; leave it out")
    if point.pipeline_degree > 1:
        raise Unsupported(f"pipeline_parallel={point.pipeline_degree}: is not compiled with {asked}; use 1")
    if point.chip.kind == "gpu":
        raise Unsupported(
            f"{asked}: JAX's absent GPUs have no memories, so that XLA's compiler for hw={point.chip.name} is told of "
            "no host memory and would keep everything in HBM; use engine=analytic, or a TPU"
        )
    if point.partitioner != "manual":
        raise Unsupported(f"partitioner={point.partitioner}: is not compiled with {asked}; use partitioner=manual")
    if point.lengths != "equal":
        raise Unsupported(f"lengths={point.lengths}: is not compiled with {asked}; use lengths=equal")
    host_rate(point)


def check_offloaded_plan(plan: "Plan") -> None:
    """Check that a cache in host memory is one of layers in a loop that hold every position.

    Raises:
        Unsupported: layers are unrolled, or some hold a window.
    """
    if not plan.offloads_kv:
        return
    if plan.unrolled:
        raise Unsupported("offload_kv=host: is compiled with a loop over layers; use engine.unroll_layers=false")
    from engines.transformer.layers.kv_cache import window_of

    if plan.axes.positions or any(window_of(plan, kind) is not None for kind in plan.model.layer_kinds):
        raise Unsupported(
            f"offload_kv=host: is compiled where every layer holds all positions of a sequence, and layers of "
            f"model={plan.model.name} hold a window, or chips share them; use engine=analytic"
        )


def host_rate(point: Point) -> float | None:
    """Bytes per second of a device's part of the host link, as large copies reach it; None where nothing is fetched.

    The cores of a chip that are devices of their own share its link.

    Raises:
        Unsupported: the chip's file does not state it.
    """
    if not point.offloads:
        return None
    rate = point.chip.require("host_link_bytes_per_s", point.chip.host_link_bytes_per_s)
    return HOST_LINK_SHARE * rate / (point.chip.xla.cores if point.chip.xla else 1)
