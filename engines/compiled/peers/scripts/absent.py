"""Runs in a peer's Python: the devices of a slice that is not there, and a peer's programs compiled for them.

Nothing here may import anything of this project: the peer's Python does not have it.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
Build = Callable[[dict[str, Any], list[Any], int], tuple[Any, Any, dict[str, int]]]


class Refused(Exception):
    """The peer has no program for what is asked; the message is a sentence."""


def main(build: Build, libraries: Sequence[str]) -> None:
    """``build(asked, devices, layers)`` → (lowered, mesh, bytes of a device's weights and cache), for every depth.

    The command line names a file that says what is asked, and a folder for the scheduled HLO and ``result.json``.
    """
    question, folder = Path(sys.argv[1]), Path(sys.argv[2])
    asked = json.loads(question.read_text(encoding="utf-8"))
    programs = list[dict[str, Any]]()
    result: dict[str, Any] = {"versions": {name: version(name) for name in libraries}, "programs": programs}
    try:
        devices = devices_of(asked["target"])
        for layers in asked["depths"]:
            found = compiled(asked, devices, layers, build)
            (folder / f"{layers}.hlo").write_text(found.pop("text"), encoding="utf-8")
            programs.append(found)
    except Refused as refusal:
        result["refused"] = str(refusal)
    except Exception as error:
        traceback.print_exc()
        result["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def devices_of(target: dict[str, Any]) -> list[Any]:
    """The slice's devices in the order of its torus, x slowest."""
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(
        platform="tpu",
        topology_name=target["topology_name"],
        chips_per_host_bounds=tuple(target["host_bounds"]),
        num_slices=1,
        wrap=tuple(target["wrap"]),
        **({"chip_config_name": target["config"]} if target["config"] else {}),
    )
    return sorted(topology.devices, key=lambda each: (*each.coords, each.core_on_chip))


def mesh_of(shape: Sequence[int], names: Sequence[str], devices: list[Any]) -> Any:
    """A mesh with axes of explicit sharding. Where no sides of the torus make an axis, JAX is told to split one."""
    import jax
    from jax.experimental import mesh_utils
    from jax.sharding import AxisType, Mesh

    types = (AxisType.Explicit,) * len(shape)
    try:
        return jax.make_mesh(tuple(shape), tuple(names), devices=devices, axis_types=types)
    except NotImplementedError:
        placed = mesh_utils.create_device_mesh(tuple(shape), devices, allow_split_physical_axes=True)
        return Mesh(placed, tuple(names), axis_types=types)


def compiled(asked: dict[str, Any], devices: list[Any], layers: int, build: Build) -> dict[str, Any]:
    """One program: its text, memory, where its partitions stand, and what it took to compile."""
    import jax

    lowered, mesh, held = build(asked, devices, layers)
    number = {(*each.coords, each.core_on_chip): place for place, each in enumerate(devices)}
    places = [number[(*each.coords, each.core_on_chip)] for each in mesh.devices.flat]
    found: dict[str, Any] = {"layers": layers, "places": places, "held": held, "memory": {}, "text": ""}
    found["out_of_memory"] = None
    start = time.perf_counter()
    try:
        executable = lowered.compile(compiler_options=asked["compiler_options"] or None)
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        found["out_of_memory"] = " ".join(str(error).split())
    else:
        stats = executable.memory_analysis()
        names = ("argument", "output", "alias", "temp", "generated_code")
        found["memory"] = {name: float(getattr(stats, f"{name}_size_in_bytes")) for name in names}
        found["text"] = executable.as_text() or ""
    return {**found, "compile_s": time.perf_counter() - start}


def bytes_on_a_device(tree: Any) -> int:
    """Bytes of the arrays of a pytree of shapes with shardings that lie on one device, without padding."""
    import math

    import jax

    return sum(math.prod(each.sharding.shard_shape(each.shape)) * each.dtype.itemsize for each in jax.tree.leaves(tree))
