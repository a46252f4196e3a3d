"""Pipeline stages on a target: which devices are a stage."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.compiled.target.base import Target
from engines.compiled.target.select import target_of
from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.core.slice import MeshShape
from engines.transformer.partition.plan import STAGE

if TYPE_CHECKING:
    from jax.sharding import Mesh


@dataclass(frozen=True, slots=True)
class Stages:
    """A target ``one`` cut into equal parts along its axes, ``cuts`` [X, Y, Z]: each is a stage of a pipeline.

    A part of a torus is a torus without the links that close it, so that what a stage sends stays within it, and
    neighbouring stages are neighbours. GPUs of a switch are cut in the order of their ids.
    """

    one: Target
    cuts: MeshShape

    @property
    def topology_name(self) -> str:
        """As of the whole."""
        return self.one.topology_name

    @property
    def cores(self) -> int:
        """Devices of one chip."""
        return self.one.cores

    @property
    def device_mesh(self) -> MeshShape:
        """The mesh of one stage."""
        x, y, z = (size // cut for size, cut in zip(self.one.device_mesh, self.cuts, strict=True))
        return (x, y, z)

    @property
    def options(self) -> Mapping[str, str | bool]:
        """As of the whole."""
        return self.one.options

    @property
    def places(self) -> tuple[int, ...]:
        """The number of the device of each partition, stage by stage."""
        import numpy as np

        shape = self.one.device_mesh
        return tuple(int(each) for each in self._staged(np.arange(math.prod(shape))).flat)

    def resolve(self, point: Point) -> Point:
        """The point unchanged: its plan is :func:`engines.transformer.partition.stages.staged_plan`."""
        return point

    def make_mesh(self) -> "Mesh":
        """The mesh ``stage``, x, y, z.

        Raises:
            Unsupported: the compiler rejects the target.
        """
        from jax.sharding import Mesh

        return Mesh(self._staged(self.one.make_mesh().devices), (STAGE, "x", "y", "z"))

    def too_large(self, memory: Mapping[str, float]) -> str | None:
        """As of the whole."""
        return self.one.too_large(memory)

    def _staged(self, devices: Any) -> Any:
        """Devices in the order of the whole's mesh → [stages, x, y, z]."""
        shape = [part for pair in zip(self.cuts, self.device_mesh, strict=True) for part in pair]
        return devices.reshape(shape).transpose(0, 2, 4, 1, 3, 5).reshape(math.prod(self.cuts), *self.device_mesh)


def target_for(point: Point) -> Target:
    """The target of a point, in stages where it has a pipeline: the longest axes are cut first.

    Raises:
        Unsupported: see :func:`engines.compiled.target.select.target_of`; or the axes do not split into the stages.
    """
    whole = target_of(point.slice())
    stages = left = point.pipeline_degree
    if stages == 1:
        return whole
    mesh, cuts = whole.device_mesh, [1, 1, 1]
    for axis in sorted(range(3), key=lambda axis: -mesh[axis]):
        cuts[axis] = math.gcd(left, mesh[axis])
        left //= cuts[axis]
    if left > 1:
        raise Unsupported(
            f"pipeline_parallel={stages}: does not cut the mesh {list(mesh)} of hw={point.chip.name} into equal parts; "
            "use a product of divisors of its axes"
        )
    x, y, z = cuts
    return Stages(whole, (x, y, z))


def check_stages(point: Point, unroll_layers: bool | str) -> None:
    """Check the engine's settings that do not go with stages.

    Raises:
        Unsupported: layers are unrolled, of which a stage has only a loop.
    """
    if unroll_layers is True:
        raise Unsupported(
            f"engine.unroll_layers=true: does not go with pipeline_parallel={point.pipeline_degree}; use false"
        )
