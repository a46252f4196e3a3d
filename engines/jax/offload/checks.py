"""Which points run with their layers' weights or caches outside the devices."""

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.jax.settings import Settings


def check_offload(point: Point, settings: Settings) -> None:
    """Check that layers of the point can come one by one.

    Raises:
        Unsupported: a key or a setting needs all layers in one program.
    """
    if point.offload == "none" and point.offload_kv == "none":
        return
    asked = f"offload={point.offload}" if point.offload != "none" else f"offload_kv={point.offload_kv}"
    off = f"{asked.split('=', maxsplit=1)[0]}=none"
    for key, plain, why in (
        ("pipeline_parallel", None, "a stage's program has all of its layers"),
        ("micro_batches", None, "a stage's program has all of its layers"),
        ("exit_threshold", None, "the layers behind an exit still make keys and values, so that all of them come"),
    ):
        if getattr(point, key) != plain:
            raise Unsupported(f"{key}={getattr(point, key)}: engine=jax does not run it with {asked}: {why}; use {off}")
    if settings.unroll_layers is False:
        raise Unsupported(f"engine.unroll_layers=false: {asked} has arrays of its own for each layer; use auto")
