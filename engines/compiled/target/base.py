"""A target: devices as a compiler sees them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from engines.core.point import Point
from engines.core.slice import MeshShape

if TYPE_CHECKING:
    from jax.sharding import Mesh


class Target(Protocol):
    """What the engine asks of a target. Its ``repr`` is part of the key of a cached program."""

    @property
    def topology_name(self) -> str:
        """Name of the devices in a row."""
        ...

    @property
    def cores(self) -> int:
        """Devices of one chip."""
        ...

    @property
    def device_mesh(self) -> MeshShape:
        """Shape of the mesh of devices that the model is partitioned over."""
        ...

    @property
    def options(self) -> Mapping[str, str | bool]:
        """Compiler options of every program."""
        ...

    @property
    def places(self) -> tuple[int, ...]:
        """The number of the device of each partition of a program; empty where they are numbered alike."""
        ...

    def resolve(self, point: Point) -> Point:
        """The point with GPU settings expressed as this project's layouts.

        Raises:
            Unsupported: the point cannot be compiled for this target.
        """
        ...

    def make_mesh(self) -> "Mesh":
        """The mesh x, y, z over the devices.

        Raises:
            Unsupported: the compiler rejects the target.
        """
        ...

    def too_large(self, memory: Mapping[str, float]) -> str | None:
        """One sentence if a program that the compiler accepted needs more memory than a device has."""
        ...
