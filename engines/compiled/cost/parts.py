"""Bytes and steps of a collective whose groups cover parts of a torus, or no product of its axes at all.

A group that is a *box*, the product of some coordinates along each axis, rings along its axes as whole axes do: with
n_a coordinates along axis a, a gap of g_a between neighbours and ``load`` groups that share a link, an all-gather of S
bytes among N devices passes S·(N−1)/N · load / links through the busiest link in Σ (n_a − 1)·g_a steps. Both directions
of a part carry every byte, unless it is a whole axis that wraps.

Any other group rings in the order of its devices, each send routed along one axis after the other; an all-to-all sends
each pair its S/N bytes that way.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.replica_groups import Hop, permute_hops, places_of

Passes = tuple[float, int, tuple[Hop, ...]]
"""Bytes through the busiest link, steps of one hop, and the links that are busy."""
ALL_TO_ALL = ("all-to-all", "ragged-all-to-all")


def passes(
    collective: Collective, groups: Sequence[Sequence[int]], shape: Sequence[int], wrap: Sequence[bool]
) -> Passes:
    """The traffic of groups that are not products of whole axes. Groups of one device send nothing."""
    several = [group for group in groups if len(group) > 1]
    if not several:
        return 0.0, 0, ()
    boxes = [_box(group, shape) for group in several]
    if collective.opcode in ALL_TO_ALL or any(box is None for box in boxes):
        return _routed(collective, several, shape, wrap)
    sides = [box for box in boxes if box is not None]
    axes = [axis for axis in range(len(shape)) if any(len(box[axis]) > 1 for box in sides)]
    largest = max(len(group) for group in several)
    links = sum(_rings(sides, axis, shape, wrap) for axis in axes)
    load = max(_load(sides, axis, shape, wrap) for axis in axes)
    rounds = 2 if collective.opcode == "all-reduce" else 1
    passed = rounds * collective.whole_bytes * (largest - 1) / largest * load / links
    steps = rounds * sum(max((len(box[axis]) - 1) * _gap(box[axis]) for box in sides) for axis in axes)
    return passed, steps, tuple(Hop(axis, step) for axis in axes for step in (-1, 1))


Box = tuple[tuple[int, ...], ...]
"""The coordinates of a group along each axis, ascending."""


def _box(group: Sequence[int], shape: Sequence[int]) -> Box | None:
    """The coordinates whose product a group is; None if it is none."""
    places = places_of(group, shape)
    box = tuple(tuple(sorted({int(each) for each in places[:, axis]})) for axis in range(len(shape)))
    return box if math.prod(map(len, box)) == len(set(group)) else None


def _rings(boxes: Sequence[Box], axis: int, shape: Sequence[int], wrap: Sequence[bool]) -> int:
    """Directed links of an axis that share the bytes: two where every part is a whole axis that wraps."""
    whole = all(len(box[axis]) in (1, shape[axis]) for box in boxes)
    return 2 if whole and wrap[axis] and shape[axis] > 2 else 1


def _gap(coordinates: Sequence[int]) -> int:
    """Most hops between neighbours along an axis."""
    return max((after - before for before, after in itertools.pairwise(coordinates)), default=0)


def _load(boxes: Sequence[Box], axis: int, shape: Sequence[int], wrap: Sequence[bool]) -> int:
    """Most groups that share a link of an axis: those of one row whose parts pass it."""
    crossing: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for box in boxes:
        ends = box[axis]
        if len(ends) == 1 or (wrap[axis] and len(ends) == shape[axis]):
            continue
        corner = tuple(side[0] for place, side in enumerate(box) if place != axis)
        crossing.update((link, corner) for link in range(ends[0], ends[-1]))
    return max(crossing.values(), default=1)


def _routed(
    collective: Collective, groups: Sequence[Sequence[int]], shape: Sequence[int], wrap: Sequence[bool]
) -> Passes:
    """Traffic of sends that are routed one by one."""
    largest = max(len(group) for group in groups)
    if collective.opcode in ALL_TO_ALL:
        pairs = [(one, other) for group in groups for one in group for other in group if one != other]
        loads, farthest = permute_hops(pairs, shape, wrap)
        return collective.whole_bytes / largest * max(loads.values()), farthest, _busy(loads)
    ordered = [sorted(group) for group in groups]
    ring = [(group[place - 1], group[place]) for group in ordered for place in range(len(group))]
    loads, farthest = permute_hops(ring, shape, wrap)
    rounds = 2 if collective.opcode == "all-reduce" else 1
    passed = rounds * collective.whole_bytes * (largest - 1) / largest * max(loads.values())
    return passed, rounds * (largest - 1) * farthest, _busy(loads)


def _busy(loads: dict[Hop, int]) -> tuple[Hop, ...]:
    return tuple(sorted(loads, key=lambda hop: (hop.axis, hop.step)))
