"""Which torus axes a collective crosses, from the device numbers that it names.

Devices are numbered as the mesh is flattened, x slowest: number = (x·Y + y)·Z + z, for [X, Y, Z] (and once more for a
last axis of cores, where a chip has two).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

_IOTA: Final = re.compile(r"^\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?$")
_PAIR: Final = re.compile(r"\{(\d+),\s*(\d+)\}")
_GROUP: Final = re.compile(r"\{([\d,\s]+)\}")


@dataclass(frozen=True, slots=True)
class Hop:
    """One axis along which a permute sends, and how far: ``step`` > 0 towards greater coordinates."""

    axis: int
    step: int


def parse_groups(text: str, devices: int) -> list[list[int]]:
    """``replica_groups`` in either form, lists ``{{0,1},{2,3}}`` or iota ``[2,2]<=[4]``; none means all in one.

    Raises:
        ValueError: neither form.
    """
    if text in ("", "{}"):
        return [list(range(devices))]
    iota = _IOTA.match(text)
    if iota:
        shape, dims = (tuple(int(each) for each in iota[part].split(",")) for part in (1, 2))
        numbers = np.arange(math.prod(dims)).reshape(dims)
        if iota[3]:
            numbers = numbers.transpose([int(each) for each in iota[3].split(",")])
        return [[int(each) for each in row] for row in numbers.reshape(shape)]
    groups = [[int(each) for each in row.split(",")] for row in _GROUP.findall(text)]
    if not groups:
        raise ValueError(f"replica groups {text[:60]}")
    return groups


def parse_pairs(text: str) -> list[tuple[int, int]]:
    """``source_target_pairs={{0,1},{1,2}}``."""
    return [(int(source), int(target)) for source, target in _PAIR.findall(text)]


def group_axes(groups: Sequence[Sequence[int]], mesh_shape: Sequence[int]) -> tuple[int, ...] | None:
    """The axes whose whole product each group covers, ascending; None where groups are no such product."""
    axes: set[int] = set()
    for group in groups:
        places = _places(group, mesh_shape)
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
    """How a permute loads the torus: hop kind → most sends that share one link; and the most hops of any one send.

    Each send goes the shorter way along every axis in turn, x first. A send along two axes loads both.
    """
    load: dict[tuple[int, int, tuple[int, ...]], int] = {}
    farthest = 0
    for source, target in pairs:
        here, there = (_places([each], mesh_shape)[0] for each in (source, target))
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


def _places(numbers: Sequence[int], mesh_shape: Sequence[int]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Coordinates [number, axis]."""
    return np.stack(np.unravel_index(np.asarray(numbers), tuple(mesh_shape)), axis=-1)
