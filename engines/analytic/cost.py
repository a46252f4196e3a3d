"""Times of one forward pass, and how its parts add up."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from engines.analytic.grid import Floats, Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds, arrays [points].

    latency = compute + memory + communication + overhead − overlapped. ``compute_s`` is the MXU or tensor core time,
    ``memory_s`` the HBM's, ``communication_s`` that of collectives (transfers and their starts), ``overhead_s`` the
    fixed costs and sampling, ``overlapped_s`` what of these overlaps another.
    """

    compute_s: Floats
    memory_s: Floats
    communication_s: Floats
    overhead_s: Floats
    overlapped_s: Floats

    @property
    def latency_s(self) -> Floats:
        """Wall-clock time."""
        return self.compute_s + self.memory_s + self.communication_s + self.overhead_s - self.overlapped_s

    def __add__(self, other: Self) -> Self:
        """One after the other."""
        return type(self)(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def times(self, count: Floats) -> Self:
        """``count`` times in a row."""
        return type(self)(**{each.name: getattr(self, each.name) * count for each in fields(self)})

    def where(self, chosen: np.ndarray, other: Self) -> Self:
        """self where ``chosen``, ``other`` elsewhere."""
        return type(self)(
            **{
                each.name: np.where(chosen, getattr(self, each.name), getattr(other, each.name))
                for each in fields(self)
            }
        )


def matmul_efficiency(grid: Grid, width: Floats) -> Floats:
    """Share of the peak that the projections reach: matmul_efficiency · width/(width + half_width).

    ``width`` is d_model's part on a chip, a side of every projection (an input's contraction, an output's columns).
    Tiles are filled and drained, and vectors of that width read and written, at a cost that grows with the width
    while the work grows with its square: hence the hyperbola.
    """
    return grid.matmul_efficiency * width / (width + grid.half_width)


def roofline_overlap(grid: Grid, compute_s: Floats, memory_s: Floats) -> Floats:
    """Seconds of the shorter of the two that run under the longer: roofline_overlap · min(compute, memory).

    At 1 this is the roofline max(compute, memory) of Williams et al. 2009; at 0 nothing overlaps.
    """
    return grid.roofline_overlap * np.minimum(compute_s, memory_s)
