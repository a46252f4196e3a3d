"""A program's own mesh over a slice that is not there, and where in the slice each of its partitions stands."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.compiled.target.base import Target
from engines.compiled.target.select import target_of
from engines.compiled.target.slices import SeveralSlices, several_slices
from engines.core.errors import InvalidRequest
from engines.core.slice import Slice

if TYPE_CHECKING:
    from jax.sharding import Mesh

Axes = Mapping[str, int]
"""Name → size of a mesh's axes, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Devices of a slice in the order of a program's partitions.

    ``axes`` are those of the program's own mesh. ``places`` holds, for each partition, the number of its device in the
    slice's torus, x slowest; a program that leaves devices out has fewer partitions.
    """

    axes: Axes
    places: tuple[int, ...]


def absent_mesh(slice_: Slice, axes: Axes | None = None, *, explicit: bool = False, num_slices: int = 1) -> "Mesh":
    """A mesh over the devices of a slice that is not there: ``axes``, placed as :func:`jax.make_mesh` does, or x, y, z.

    Of several slices, the first axis goes from slice to slice, and on within them where it is longer; by default it is
    ``slice``. ``explicit`` makes axes of JAX's explicit sharding; otherwise the compiler propagates shardings.

    Raises:
        Unsupported: the slice's chip has no compiler here, or the compiler rejects the topology.
        InvalidRequest: the axes do not multiply to the slice's devices.
    """
    import jax
    from jax.sharding import AxisType, Mesh

    target = target_of(slice_) if num_slices == 1 else several_slices(slice_, num_slices)
    own = target.make_mesh()
    kind = AxisType.Explicit if explicit else AxisType.Auto
    if axes is None:
        return Mesh(own.devices, own.axis_names, axis_types=(kind,) * len(own.axis_names))
    check_axes(axes, own.devices.size, slice_)
    types = (kind,) * len(axes)
    if num_slices > 1:
        return _over_slices(own, axes, types, num_slices)
    return jax.make_mesh(tuple(axes.values()), tuple(axes), devices=list(own.devices.flat), axis_types=types)


def _over_slices(own: "Mesh", axes: Axes, types: tuple[Any, ...], num_slices: int) -> "Mesh":
    """The mesh of each slice, one after the other along the first axis."""
    import jax
    import numpy as np
    from jax.sharding import Mesh

    (first, size), *rest = axes.items()
    if size % num_slices:
        raise InvalidRequest(
            "mesh", f"{first}:{size}", f"is the axis between {num_slices} slices, and no multiple of that",
            "put the axis that goes from slice to slice first",
        )  # fmt: skip
    inner = (size // num_slices, *(each for _, each in rest))
    parts = [
        jax.make_mesh(inner, tuple(axes), devices=list(devices.flat), axis_types=types).devices
        for devices in own.devices
    ]
    return Mesh(np.concatenate(parts, axis=0), tuple(axes), axis_types=types)


def check_axes(axes: Axes, devices: int, slice_: Slice) -> None:
    """Check that a mesh has as many devices as the slice.

    Raises:
        InvalidRequest: it has not.
    """
    count = math.prod(axes.values())
    if not axes or min(axes.values()) < 1 or count != devices:
        chips = f"{slice_.num_chips} {slice_.chip.name}"
        shape = "[" + ",".join(f"{name}:{size}" for name, size in axes.items()) + "]"
        raise InvalidRequest(
            "mesh", shape, f"has {count} devices, and {chips} have {devices}", "make their product agree"
        )


def placement_of(mesh: Any, target: Target) -> Placement:
    """Where the devices of a program's mesh stand in the slice.

    Raises:
        InvalidRequest: the mesh's devices are not those of the slice, as those of this machine are not.
    """
    place = {_identity(device): number for number, device in enumerate(target.make_mesh().devices.flat)}
    try:
        places = tuple(place[_identity(device)] for device in mesh.devices.flat)
    except KeyError:
        kinds = {getattr(device, "device_kind", "?") for device in mesh.devices.flat}
        raise InvalidRequest(
            "mesh",
            dict(mesh.shape),
            f"has devices that are not of the slice {target.topology_name} ({', '.join(sorted(kinds))})",
            "make it with absent_mesh, or give the names and sizes of its axes",
        ) from None
    if isinstance(target, SeveralSlices):
        places = places[: len(places) // target.count]  # a program is partitioned over one slice, and runs on each
        if max(places) >= len(places):
            raise InvalidRequest(
                "mesh",
                dict(mesh.shape),
                "does not go through its slices one by one",
                "put the axis between slices first",
            )
    return Placement(axes=dict(mesh.shape), places=places)


def _identity(device: Any) -> tuple[Any, ...]:
    """What tells a device of a topology from the others and from those of this machine."""
    return (device.platform, device.device_kind, device.id, *getattr(device, "coords", ()))


def in_order(axes: Axes | None, devices: int) -> Placement:
    """The placement of a program of which only the text is there: its partitions in the order of the slice's torus."""
    return Placement(axes=dict(axes) if axes else {"devices": devices}, places=tuple(range(devices)))


def size_of(axes: Axes, names: Sequence[str]) -> int:
    """Devices along these axes."""
    return math.prod(axes[name] for name in names)
