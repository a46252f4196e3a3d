"""Stages: which layers run on which part of a slice, by Alpa's dynamic program over layers (its section 5.2).

A batch passes the stages in micro-batches, so that with M of them a pass takes Σ tᵢ + (M − 1)·max tᵢ over the stages'
times tᵢ for one. For every bound on the largest of them the program finds the least sum of stages that cover all layers
and all chips; a bound that with the least sum of all exceeds the best pass so far ends the search.

Parts come from halving the slice along its longest axis, again and again: parts of such sizes tile the slice in any
number and order as long as their chips add up, the largest placed first.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.core.slice import MeshShape

Floats = NDArray[np.float64]


def parts_of(mesh: MeshShape, *, in_order: bool = False) -> list[MeshShape]:
    """The slice, its half along the longest axis (z before y before x), the half of that, and so on.

    ``in_order`` halves the slowest axis of several chips while that is even: GPUs that follow each other, whole nodes
    before parts of one.
    """
    found = [mesh]
    while True:
        sizes = list(found[-1])
        even = [axis for axis in (2, 1, 0) if sizes[axis] % 2 == 0]
        if in_order:
            even = [axis for axis in (0, 1, 2) if sizes[axis] > 1][:1]
            even = [axis for axis in even if sizes[axis] % 2 == 0]
        if not even:
            return found
        longest = max(even, key=lambda axis: sizes[axis])
        sizes[longest] //= 2
        found.append((sizes[0], sizes[1], sizes[2]))


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a slice: seconds of a micro-batch in a layer, before the first and after the last; what it can hold.

    ``handed_s`` is what it takes to give a micro-batch to the next stage. ``most_layers`` fit in its memory.
    """

    chips: int
    layer_s: float
    first_s: float
    last_s: float
    handed_s: float
    most_layers: int


@dataclass(frozen=True, slots=True)
class Stages:
    """Stages in order, each (number of layers, index of its part); ``seconds`` of a pass."""

    stages: tuple[tuple[int, int], ...]
    seconds: float
    slowest_s: float


def best_stages(
    layers: int, chips: int, parts: Sequence[Part], micro_batches: int, *, below_s: float = np.inf
) -> Stages | None:
    """The stages of least time for a pass of that many micro-batches, if that is less than ``below_s``.

    None where none is, or none fits in memory.
    """
    times = _times(layers, parts)
    bounds = np.unique(times[np.isfinite(times)])

    def bounded(bound: float) -> tuple[float, tuple[tuple[int, int], ...], float] | None:
        return _least_sum(layers, chips, parts, np.where(times <= bound, times, np.inf))

    least = bounded(float(bounds[-1])) if bounds.size else None
    if least is None:
        return None
    best = None
    # A looser bound allows all that a tighter one does: from the tightest that allows some stages on.
    first = 0 if micro_batches > 1 else bounds.size - 1
    first = bisect_left(range(bounds.size), True, lo=first, key=lambda index: bounded(float(bounds[index])) is not None)
    for bound in bounds[first:]:
        if least[0] + (micro_batches - 1) * bound >= below_s:
            # No stages have a smaller sum, and those of a smaller largest one have been seen.
            break
        found = bounded(bound)
        assert found is not None
        total, stages, slowest = found
        seconds = total + (micro_batches - 1) * slowest
        if seconds < below_s:
            best, below_s = Stages(stages, seconds, slowest), seconds
    return best


def _times(layers: int, parts: Sequence[Part]) -> Floats:
    """Seconds of a stage [part, number of layers, whether it is first, whether it is last]; infinite if too large."""
    counts = np.arange(layers + 1)
    found = np.full((len(parts), layers + 1, 2, 2), np.inf)
    for index, part in enumerate(parts):
        fits = (counts >= 1) & (counts <= part.most_layers)
        for first in (0, 1):
            for last in (0, 1):
                time = counts * part.layer_s + first * part.first_s + last * part.last_s + (1 - last) * part.handed_s
                found[index, :, first, last] = np.where(fits, time, np.inf)
    return found


def _least_sum(
    layers: int, chips: int, parts: Sequence[Part], times: Floats
) -> tuple[float, tuple[tuple[int, int], ...], float] | None:
    """(least Σ tᵢ, the stages, the largest tᵢ) of stages that cover all layers and chips; None where there are none.

    ``least[k, d]`` is that of the first k layers on d chips, none of them the last stage.
    """
    least = np.full((layers + 1, chips + 1), np.inf)
    least[0, 0] = 0.0
    came = np.zeros((layers + 1, chips + 1, 2), dtype=np.int64)
    sums: list[tuple[float, int, int]] = []
    for done in range(1, layers + 1):
        for index, part in enumerate(parts):
            for last in (0, 1) if done == layers else (0,):
                # Stages of `done − k` layers behind the first k; the first stage has none before it.
                behind = times[index, done - np.arange(done), 0, last]
                behind[0] = times[index, done, 1, last]
                if not np.isfinite(behind).any():
                    continue
                whole = least[:done, : chips + 1 - part.chips] + behind[:, None]
                before = whole.argmin(axis=0)
                value = whole[before, np.arange(whole.shape[1])]
                if last:
                    sums.append((float(value[-1]), int(before[-1]), index))
                    continue
                target = least[done, part.chips :]
                better = value < target
                target[better] = value[better]
                came[done, part.chips :][better] = np.stack([before[better], np.full(better.sum(), index)], axis=1)
    total, before, index = min(sums, default=(np.inf, 0, 0))
    if not np.isfinite(total):
        return None
    stages, done, left = [(layers - before, index)], before, chips - parts[index].chips
    while done:
        before, index = (int(each) for each in came[done, left])
        stages.append((done - before, index))
        done, left = before, left - parts[index].chips
    stages.reverse()
    ends = [(number == 0, number == len(stages) - 1) for number in range(len(stages))]
    each = [float(times[index, count, int(a), int(b)]) for (count, index), (a, b) in zip(stages, ends, strict=True)]
    return total, tuple(stages), max(each)
