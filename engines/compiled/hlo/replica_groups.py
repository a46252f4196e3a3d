"""The torus axes of a collective, from the device ids in its replica groups or pairs.

Devices are numbered as the mesh is flattened, x slowest: number = (x·Y + y)·Z + z, for [X, Y, Z] (with
a last axis of cores if a chip has two).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.compiled.hlo.parser import UnreadableHlo

_IOTA: Final = re.compile(r"^\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?$")
_MESH: Final = re.compile(r"^mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? *\{(.*)\}$")
_MESH_AXIS: Final = re.compile(r"'([^']+)'(?::\((\d+)\))?(?:=?(\d+))?")
_PAIR: Final = re.compile(r"\{(\d+),\s*(\d+)\}")
_GROUP: Final = re.compile(r"\{([\d,\s]+)\}")


@dataclass(frozen=True, slots=True)
class Hop:
    """A directed axis: ``step`` > 0 towards greater coordinates."""

    axis: int
    step: int


def parse_groups(text: str, devices: int) -> list[list[int]]:
    """The groups of ``replica_groups`` in any notation; empty text is one group of all devices.

    Notations: lists ``{{0,1},{2,3}}``, iota ``[2,2]<=[4]``, and axes of a named mesh
    ``mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}``.

    Raises:
        UnreadableHlo: another notation.
    """
    if text in ("", "{}"):
        return [list(range(devices))]
    iota = _IOTA.match(text)
    if iota:
        shape = tuple(int(each) for each in iota[1].split(","))
        return [[int(each) for each in row] for row in _ordered(iota[2], iota[3]).reshape(shape)]
    named = _MESH.match(text)
    if named:
        return _mesh_groups(named)
    groups = [[int(each) for each in row.split(",")] for row in _GROUP.findall(text)]
    if not groups:
        raise UnreadableHlo(f"replica groups {text[:60]}: have an unknown notation")
    return groups


def _ordered(dims: str, transposed: str | None) -> NDArray[np.int64]:
    """0, 1, … in the shape ``dims``, its axes in the order ``transposed``."""
    shape = tuple(int(each) for each in dims.split(","))
    numbers: NDArray[np.int64] = np.arange(math.prod(shape)).reshape(shape)
    return numbers.transpose([int(each) for each in transposed.split(",")]) if transposed else numbers


def _mesh_groups(named: re.Match[str]) -> list[list[int]]:
    """Groups along some axes of a named mesh; ``'a':(2)4`` is the part of axis a of size 4 that 2 blocks precede."""
    axes = {name: int(size) for name, _, size in _MESH_AXIS.findall(named[1])}
    chosen = {name: (int(before or 1), int(size or axes[name])) for name, before, size in _MESH_AXIS.findall(named[4])}
    shape: list[int] = []
    grouped: list[int] = []
    for name, size in axes.items():
        before, part = chosen.get(name, (1, 1))
        if name in chosen:
            grouped.append(len(shape) + 1)
        shape += [before, part, size // (before * part)]
    numbers = _ordered(named[2], named[3]) if named[2] else np.arange(math.prod(axes.values()))
    rest = [axis for axis in range(len(shape)) if axis not in grouped]
    count = math.prod(shape[axis] for axis in grouped)
    rows = numbers.reshape(shape).transpose(rest + grouped).reshape(-1, count)
    return [[int(each) for each in row] for row in rows]


def parse_pairs(text: str) -> list[tuple[int, int]]:
    """The (source, target) pairs of ``source_target_pairs={{0,1},{1,2}}``."""
    return [(int(source), int(target)) for source, target in _PAIR.findall(text)]


def group_axes(groups: Sequence[Sequence[int]], mesh_shape: Sequence[int]) -> tuple[int, ...] | None:
    """The axes whose product each group covers, ascending; None if a group is not a product of whole axes."""
    axes: set[int] = set()
    for group in groups:
        places = places_of(group, mesh_shape)
        varying = [axis for axis in range(len(mesh_shape)) if len(set(places[:, axis])) > 1]
        if math.prod(mesh_shape[axis] for axis in varying) != len(set(group)):
            return None
        axes.update(varying)
    if any(len(group) != math.prod(mesh_shape[axis] for axis in axes) for group in groups):
        return None
    return tuple(sorted(axes))


def permute_hops(
    pairs: Sequence[tuple[int, int]], mesh_shape: Sequence[int], wrap: Sequence[bool]
) -> tuple[dict[Hop, int], int]:
    """Load of a permute on the torus: directed axis → most sends that share one link; and the most hops of one send.

    Sends are routed the shorter way along one axis after the other, x first.
    """
    load: dict[tuple[int, int, tuple[int, ...]], int] = {}
    farthest = 0
    for source, target in pairs:
        here, there = (places_of([each], mesh_shape)[0] for each in (source, target))
        travelled = 0
        at = [int(each) for each in here]
        for axis, size in enumerate(mesh_shape):
            distance = int(there[axis]) - at[axis]
            if wrap[axis] and abs(distance) > size / 2:
                distance -= int(math.copysign(size, distance))
            direction = 1 if distance > 0 else -1
            for _ in range(abs(distance)):
                key = (axis, direction, tuple(at))
                load[key] = load.get(key, 0) + 1
                at[axis] = (at[axis] + direction) % size
            travelled += abs(distance)
        farthest = max(farthest, travelled)
    found: dict[Hop, int] = {}
    for (axis, direction, _), count in load.items():
        hop = Hop(axis, direction)
        found[hop] = max(found.get(hop, 0), count)
    return found, farthest


def places_of(numbers: Sequence[int], mesh_shape: Sequence[int]) -> NDArray[np.int64]:
    """Coordinates [number, axis] of devices."""
    return np.stack(np.unravel_index(np.asarray(numbers), tuple(mesh_shape)), axis=-1)
