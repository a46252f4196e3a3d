"""Which points run with their layers' weights outside the devices."""

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.jax.settings import Settings

FOUR_BITS = ("int4", "mxfp4")


def check_offload(point: Point, settings: Settings) -> None:
    """Check that layers of the point can come one by one.

    Raises:
        Unsupported: a key or a setting needs all layers in one program, or values that a host does not pack.
    """
    if point.offload == "none":
        return
    asked = f"offload={point.offload}"
    for key, plain in (
        *(("speculative", "none"), ("exit_threshold", None), ("pruning", "none"), ("lengths", "equal")),
        *(("pipeline_parallel", None), ("micro_batches", None)),
    ):
        if getattr(point, key) != plain:
            raise Unsupported(f"{key}={getattr(point, key)}: engine=jax does not run it with {asked}; use offload=none")
    if point.partitioner != "manual":
        raise Unsupported(f"{asked}: engine=jax cuts each layer itself; use partitioner=manual")
    if point.weight_dtype in FOUR_BITS:
        raise Unsupported(
            f"weight_dtype={point.weight_dtype}: engine=jax keeps no packed 4-bit values on the host, and {asked}; "
            "use weight_dtype=int8, or offload=none"
        )
    for key in ("prefill_chunk", "shared_prefix", "stop_token", "num_processes", "coordinator"):
        value = getattr(settings, key)
        if value != getattr(Settings(), key):
            raise Unsupported(f"engine.{key}={value}: does not run with {asked}; leave it out, or use offload=none")
    if settings.unroll_layers is False:
        raise Unsupported(f"engine.unroll_layers=false: {asked} has arrays of its own for each layer; use auto")
