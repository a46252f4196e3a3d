"""Which devices JAX sees, whether they are the requested chips, and the mesh over them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.sharding import AxisType, Mesh

from engines.core.errors import OutOfMemory, Unsupported
from engines.core.point import Point
from engines.host.nvidia import check_power, power_limits
from engines.transformer.partition.plan import STAGE, Plan


def mesh_of(point: Point, plan: Plan) -> Mesh:
    """A mesh [x, y, z] of the plan's shape over the devices present, [stage, x, y, z] of a pipeline.

    Raises:
        Unsupported: the devices are other chips than the point's, or fewer.
    """
    devices = _devices(point)
    if len(devices) < point.num_chips:
        remedy = (
            f"set XLA_FLAGS=--xla_force_host_platform_device_count={point.num_chips} before JAX is imported"
            if point.chip.kind == "cpu"
            else "use fewer chips"
        )
        raise Unsupported(
            f"num_chips={point.num_chips}: JAX sees {len(devices)} devices for hw={point.chip.name}; {remedy}"
        )
    shape: tuple[int, ...] = plan.mesh_shape
    names: tuple[str, ...] = ("x", "y", "z")
    if plan.stages > 1:
        shape, names = (plan.stages, *shape), (STAGE, *names)
    return jax.make_mesh(
        shape, names, axis_types=(AxisType.Auto,) * len(names), devices=_shared(devices, point.num_chips)
    )


def _shared(devices: list[jax.Device], count: int) -> list[jax.Device]:
    """``count`` of the devices, equally many from every process: a process without a device could not participate."""
    processes = jax.process_count()
    if processes == 1:
        return devices[:count]
    if count % processes:
        raise Unsupported(
            f"num_chips={count}: does not split over engine.num_processes={processes}; use a multiple of {processes}"
        )
    taken = Counter[int]()
    chosen = []
    for each in devices:
        if taken[each.process_index] < count // processes:
            taken[each.process_index] += 1
            chosen.append(each)
    return chosen


def _devices(point: Point) -> list[jax.Device]:
    hw, kind = point.chip.name, point.chip.kind
    if kind == "cpu":
        return list(jax.devices("cpu"))
    present = list(jax.devices())
    found = present[0].device_kind
    if present[0].platform != kind or found not in point.chip.device_names:
        raise Unsupported(
            f"hw={hw} is not on this machine, which has {len(present)} × {found} for JAX; "
            f"use hw=cpu num_chips=8 to measure here, or another engine for hw={hw}"
        )
    if kind == "gpu":
        check_power(point.chip, power_limits())
    return present


def compiler_options(plan: Plan, mesh: Mesh) -> dict[str, str] | None:
    """XLA options for a plan's programs; None for XLA's defaults.

    On a CPU matmuls are in the format of the activations or in float32, and narrower weights are converted first. XLA
    would hoist the conversion out of the loops over layers and steps, which holds all weights in the wider format at
    once; without that pass, one layer is converted at a time.
    """
    formats = {plan.weight_dtype, plan.head_format, plan.act_dtype, plan.kv_dtype}
    if mesh.devices.flat[0].platform != "cpu" or formats == {"float32"}:
        return None
    return {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"}


@contextmanager
def out_of_memory(point: Point) -> Iterator[None]:
    """Turn JAX's RESOURCE_EXHAUSTED, and nothing else, into OutOfMemory; its UNIMPLEMENTED into Unsupported."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        if "UNIMPLEMENTED" in reason:
            formats = f"weight_dtype={point.weight_dtype} act_dtype={point.act_dtype} kv_dtype={point.kv_dtype}"
            raise Unsupported(f"{formats}: hw={point.chip.name} has no program for it ({reason})") from error
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(
            f"batch_size={point.batch_size}: {point.model.name} does not fit {point.num_chips} × {point.chip.name} "
            f"({reason}); use more chips, a smaller batch or int8 weights"
        ) from error
