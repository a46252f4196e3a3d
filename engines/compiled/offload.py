"""Offloaded weights in a compiled program: which points have one, and how fast their layers arrive."""

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.offload.host_link import HOST_LINK_SHARE


def check_offload(point: Point) -> None:
    """Check that offloaded weights can be compiled for: from host memory, for a TPU.

    Raises:
        Unsupported: they are on a drive, which no compiler knows, or for another chip.
    """
    if point.offload == "nvme":
        raise Unsupported("offload=nvme: a compiler knows host memory and no drive; use offload=host")
    if point.offload != "none" and point.speculative != "none":
        raise Unsupported(
            f"speculative={point.speculative}: is not compiled with offload={point.offload}; leave it out"
        )
    if point.offload != "none" and point.exit_threshold is not None:
        raise Unsupported(
            f"exit_threshold={point.exit_threshold}: is not compiled with offload={point.offload}; leave it out"
        )
    if point.offload != "none" and point.lengths != "equal":
        raise Unsupported(f"lengths={point.lengths}: is not compiled with offload={point.offload}; leave it out")
    if point.offload != "none" and point.pipeline_degree > 1:
        raise Unsupported(
            f"pipeline_parallel={point.pipeline_degree}: is not compiled with offload={point.offload}; use 1"
        )
    if point.offload != "none" and (point.chip.kind != "tpu" or point.partitioner != "manual"):
        raise Unsupported(
            f"offload={point.offload}: engine=compiled fetches layers in programs for TPUs with partitioner=manual, "
            f"not hw={point.chip.name} with partitioner={point.partitioner}; use engine=analytic"
        )


def host_rate(point: Point) -> float | None:
    """Bytes per second of the host link as large copies reach it; None of a point that fetches nothing."""
    if point.offload == "none":
        return None
    return HOST_LINK_SHARE * point.chip.require("host_link_bytes_per_s", point.chip.host_link_bytes_per_s)
