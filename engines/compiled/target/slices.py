"""Several equal TPU slices joined by the data-centre network, as XLA's TPU compiler sees them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.compiled.target.select import target_of
from engines.compiled.target.tpu import TpuTarget, ordered_devices
from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.core.slice import MeshShape, Slice

if TYPE_CHECKING:
    from jax.sharding import Mesh


@dataclass(frozen=True, slots=True)
class SeveralSlices:
    """``count`` slices like ``one``: a target of its own, so that one slice's programs keep their keys."""

    one: TpuTarget
    count: int

    @property
    def topology_name(self) -> str:
        """Such as ``2 × v5e:4x4``."""
        return f"{self.count} × {self.one.topology_name}"

    @property
    def cores(self) -> int:
        """Devices of one chip."""
        return self.one.cores

    @property
    def device_mesh(self) -> MeshShape:
        """[slices·X, Y, Z·cores]."""
        x, y, z = self.one.device_mesh
        return (self.count * x, y, z)

    @property
    def options(self) -> Mapping[str, str | bool]:
        """Those of one slice."""
        return self.one.options

    @property
    def places(self) -> tuple[int, ...]:
        """Partitions are numbered as devices are."""
        return ()

    def resolve(self, point: Point) -> Point:
        """Not for points: the Transformer is partitioned over one slice.

        Raises:
            Unsupported: always.
        """
        raise Unsupported(
            f"num_chips={point.num_chips}: a Transformer is partitioned over one slice; use shardbench estimate"
        )

    def make_mesh(self) -> "Mesh":
        """The mesh ``slice``, x, y, z.

        Raises:
            Unsupported: the compiler rejects the topology.
        """
        import numpy as np
        from jax.sharding import Mesh

        devices = np.array(ordered_devices(self.one, self.count))
        return Mesh(devices.reshape(self.count, *self.one.device_mesh), ("slice", "x", "y", "z"))

    def too_large(self, memory: Mapping[str, float]) -> str | None:
        """As of one slice."""
        return self.one.too_large(memory)


def several_slices(slice_: Slice, count: int) -> SeveralSlices:
    """Describe them.

    Raises:
        Unsupported: the chip is no TPU, or one slice cannot be compiled for.
    """
    one = target_of(slice_)
    if not isinstance(one, TpuTarget):
        raise Unsupported(f"num_slices={count}: hw={slice_.chip.name} comes in no slices; use a TPU, or leave it out")
    return SeveralSlices(one, count)
