"""A slice described to the compiler, and the mesh whose axes are its torus axes. Nothing of it is on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from engines.core.chip import Chip
from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.core.slice import MeshShape, Slice

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from engines.compiled.cost.base import CostModel


@dataclass(frozen=True, slots=True)
class Generation:
    """What the compiler calls a chip. ``cores`` are the devices of one chip: v4 and v5p join theirs into one."""

    compiler_name: str
    cores: int = 1
    config: str | None = None


GENERATIONS: Final[dict[str, Generation]] = {
    "tpu-v4": Generation("v4", config="megacore"),
    "tpu-v5e": Generation("v5e"),
    "tpu-v5p": Generation("v5p"),
    "tpu-v6e": Generation("v6e"),
    "tpu-7x": Generation("tpu7x", cores=2),
}
MAX_CHIPS: Final = 1024


@dataclass(frozen=True, slots=True)
class TpuTarget:
    """A slice as the compiler is told of it: all that decides a topology, hence part of a cache key."""

    topology_name: str
    mesh_shape: MeshShape
    wrap: tuple[bool, bool, bool]
    host_bounds: tuple[int, int, int]
    config: str | None
    cores: int

    options: ClassVar[Mapping[str, str | bool]] = {}

    @property
    def device_mesh(self) -> MeshShape:
        """[X, Y, Z·cores]: the mesh that the model is cut over; the cores of one chip are neighbours along z."""
        x, y, z = self.mesh_shape
        return (x, y, z * self.cores)

    def asked(self, point: Point) -> Point:
        """The point as it is: layouts are this project's words."""
        return point

    def make_mesh(self) -> "Mesh":
        """See :func:`device_mesh`."""
        return device_mesh(self)

    def machine(self, chip: Chip) -> "CostModel":
        """Cycles and a torus; see :func:`engines.compiled.cost.tpu.tpu_of`."""
        from engines.compiled.cost.tpu import tpu_of

        return tpu_of(chip, self)

    def too_large(self, memory: Mapping[str, float]) -> str | None:
        """The TPU compiler refuses such a program itself."""
        return None


def tpu_target_of(slice_: Slice) -> TpuTarget:
    """Describe a slice.

    Raises:
        Unsupported: its chip is none that the compiler knows, or it is larger than what was tried.
    """
    chip = slice_.chip
    generation = GENERATIONS.get(chip.name)
    if generation is None:
        raise Unsupported(f"hw={chip.name}: engine=compiled compiles for {', '.join(GENERATIONS)} and NVIDIA's GPUs")
    if slice_.num_chips > MAX_CHIPS:
        raise Unsupported(f"num_chips={slice_.num_chips}: engine=compiled compiles for up to {MAX_CHIPS} chips")
    x, y, z = slice_.mesh_shape
    dims = (x, y, z) if chip.torus_dims == 3 else (x, y)
    if chip.torus_dims == 2 and z != 1:
        raise Unsupported(f"mesh_shape={list(slice_.mesh_shape)}: hw={chip.name} has two axes; use [X,Y,1]")
    return TpuTarget(
        topology_name=f"{generation.compiler_name}:{'x'.join(map(str, dims))}",
        mesh_shape=slice_.mesh_shape,
        wrap=slice_.wrap,
        host_bounds=(1 + (x % 2 == 0), 1 + (y % 2 == 0), 1),
        config=generation.config,
        cores=generation.cores,
    )


def device_mesh(target: TpuTarget) -> "Mesh":
    """The mesh x, y, z over the slice's devices, ordered by their coordinates.

    Raises:
        Unsupported: the compiler refuses the topology, or its devices do not fill the mesh.
    """
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh

    options: dict[str, Any] = {"chip_config_name": target.config} if target.config else {}
    try:
        topology = topologies.get_topology_desc(
            platform="tpu",
            topology_name=target.topology_name,
            chips_per_host_bounds=target.host_bounds,
            num_slices=1,
            wrap=target.wrap,
            **options,
        )
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Unsupported(
            f"mesh_shape={list(target.mesh_shape)}: the compiler refuses the topology: {reason}"
        ) from None
    present: list[Any] = list(topology.devices)  # a TPU device has coordinates, which the base class does not declare
    devices = sorted(present, key=lambda each: (*each.coords, each.core_on_chip))
    shape = target.device_mesh
    if len(devices) != int(np.prod(shape)):
        raise Unsupported(
            f"mesh_shape={list(target.mesh_shape)}: the compiler's {target.topology_name} has {len(devices)} devices, "
            f"which do not fill a mesh of {list(shape)}"
        )
    return Mesh(np.array(devices).reshape(shape), ("x", "y", "z"))
