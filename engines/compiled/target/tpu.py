"""A TPU slice described to XLA's TPU compiler, and the mesh whose axes are its torus axes; no TPU has to be present."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.core.slice import MeshShape, Slice

if TYPE_CHECKING:
    from jax.sharding import Mesh


MAX_CHIPS: Final = 1024
"""The largest slice that compilation has been tested for."""


@dataclass(frozen=True, slots=True)
class TpuTarget:
    """A slice as the compiler sees it: all that determines a topology, hence part of a cache key.

    The topology's axes are the mesh's, those of one chip last: the slice that the mesh [1, 2, 2] calls y and z is the
    compiler's ``2x2x1``. On v4 it aborts on ``1x2x2``, which no cloud sells (a check of its
    ``rotated_pincer_emitter_base.cc`` fails). ``wrap`` and ``host_bounds`` follow the topology's order.
    """

    topology_name: str
    mesh_shape: MeshShape
    wrap: tuple[bool, bool, bool]
    host_bounds: tuple[int, int, int]
    config: str | None
    cores: int

    options: ClassVar[Mapping[str, str | bool]] = {}
    places: ClassVar[tuple[int, ...]] = ()

    @property
    def device_mesh(self) -> MeshShape:
        """[X, Y, Z·cores]: the mesh that the model is partitioned over; cores of one chip are neighbours along z."""
        x, y, z = self.mesh_shape
        return (x, y, z * self.cores)

    @property
    def order(self) -> tuple[int, ...]:
        """The mesh axis of every axis of the topology."""
        return _topology_order(self.mesh_shape)

    def resolve(self, point: Point) -> Point:
        """The point unchanged: a TPU's layouts are this project's own."""
        return point

    def make_mesh(self) -> "Mesh":
        """See :func:`device_mesh`."""
        return device_mesh(self)

    def too_large(self, memory: Mapping[str, float]) -> str | None:
        """Always None: the TPU compiler rejects such a program itself."""
        return None


def tpu_target_of(slice_: Slice) -> TpuTarget:
    """Describe a slice.

    Raises:
        Unsupported: the chip's file has no name for the compiler, or the slice is larger than ``MAX_CHIPS``.
    """
    chip = slice_.chip
    xla = chip.require("xla", chip.xla)
    if slice_.num_chips > MAX_CHIPS:
        raise Unsupported(
            f"num_chips={slice_.num_chips}: engine=compiled compiles for at most {MAX_CHIPS} chips; use fewer"
        )
    if chip.torus_dims == 2 and slice_.mesh_shape[2] != 1:
        raise Unsupported(f"mesh_shape={list(slice_.mesh_shape)}: hw={chip.name} has two torus axes; use [X,Y,1]")
    order = _topology_order(slice_.mesh_shape)
    x, y, z = (slice_.mesh_shape[axis] for axis in order)
    wraps_x, wraps_y, wraps_z = (slice_.wrap[axis] for axis in order)
    dims = (x, y, z)[: chip.torus_dims]
    return TpuTarget(
        topology_name=f"{xla.name}:{'x'.join(map(str, dims))}",
        mesh_shape=slice_.mesh_shape,
        wrap=(wraps_x, wraps_y, wraps_z),
        host_bounds=(1 + (x % 2 == 0), 1 + (y % 2 == 0), 1),
        config=xla.config,
        cores=xla.cores,
    )


def _topology_order(mesh_shape: MeshShape) -> tuple[int, ...]:
    return tuple(sorted(range(3), key=lambda axis: mesh_shape[axis] == 1))


def device_mesh(target: TpuTarget) -> "Mesh":
    """The mesh x, y, z over the slice's devices, ordered by their coordinates.

    Raises:
        Unsupported: the compiler rejects the topology, or its devices do not fill the mesh.
    """
    import numpy as np
    from jax.sharding import Mesh

    shape = target.device_mesh
    return Mesh(np.array(ordered_devices(target)).reshape(shape), ("x", "y", "z"))


def ordered_devices(target: TpuTarget, num_slices: int = 1) -> list[Any]:
    """Devices of so many slices, one after the other, each slice's by their coordinates, x slowest.

    Raises:
        Unsupported: the compiler rejects the topology, or its devices do not fill the mesh.
    """
    import math

    import jax
    from jax.experimental import topologies

    options: dict[str, Any] = {"chip_config_name": target.config} if target.config else {}
    try:
        topology = topologies.get_topology_desc(
            platform="tpu",
            topology_name=target.topology_name,
            chips_per_host_bounds=target.host_bounds,
            num_slices=num_slices,
            wrap=target.wrap,
            **options,
        )
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Unsupported(
            f"mesh_shape={list(target.mesh_shape)}: the compiler rejects the topology: {reason}"
        ) from None
    present: list[Any] = list(topology.devices)  # a TPU device has coordinates, which the base class does not declare
    places = [target.order.index(axis) for axis in range(3)]
    devices = sorted(
        present,
        key=lambda each: (
            getattr(each, "slice_index", 0),
            *(each.coords[place] for place in places),
            each.core_on_chip,
        ),
    )
    shape = target.device_mesh
    if len(devices) != num_slices * math.prod(shape):
        raise Unsupported(
            f"mesh_shape={list(target.mesh_shape)}: the compiler's {target.topology_name} has {len(devices)} devices, "
            f"which do not fill a mesh of {list(shape)}"
        )
    return devices
