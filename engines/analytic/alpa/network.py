"""Seconds of collectives along any axes of one slice, with the constants of the closed forms."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engines.analytic.alpa.roles import Sent
from engines.analytic.grid import Grid
from engines.analytic.torus_links import exchange, gathering
from engines.core.layout import axes_size
from engines.core.slice import MeshShape

Local = Callable[[int, int], float]
"""(shards of rows, shards of columns) → bytes of a value that a chip holds."""


@dataclass(frozen=True)
class Network:
    """The links of the one point of ``grid``."""

    grid: Grid
    mesh: MeshShape

    @cached_property
    def _linear(self) -> dict[tuple[bool, str], tuple[float, float]]:
        """(whether it is an all-to-all, axes) → seconds to start, seconds a byte: both kinds are linear in bytes."""
        found = {}
        for count in range(4):
            for axes in map("".join, itertools.combinations("xyz", count)):
                for exchanges, timed in ((True, exchange), (False, gathering)):
                    one = timed(self.grid, axes, np.ones(1))
                    found[exchanges, axes] = float(np.ravel(one.start_s)[0]), float(np.ravel(one.transfer_s)[0])
        return found

    @cached_property
    def _stream(self) -> float:
        return float(np.ravel(self.grid.hbm_bytes_per_s * self.grid.hbm_efficiency)[0])

    @cached_property
    def _link(self) -> float:
        return float(np.ravel(self.grid.link_bytes_per_s * self.grid.link_efficiency)[0])

    def size(self, axes: str) -> int:
        """Chips along ``axes``."""
        return axes_size(axes, self.mesh)

    def seconds(self, kind: str, axes: str, size_bytes: float) -> float:
        """One collective whose payload takes ``size_bytes``; an all-reduce is a reduce-scatter and an all-gather.

        A copy reads and writes the payload; a permute sends it over one link, as an all-to-all starts.
        """
        if kind == "copy":
            return 2 * size_bytes / self._stream
        if kind == "collective-permute":
            return self._linear[True, axes][0] + size_bytes / self._link
        start, each = self._linear[kind == "all-to-all", axes]
        return (start + each * size_bytes) * (2 if kind == "all-reduce" else 1)

    def total_s(self, steps: tuple[Sent, ...], held: Local) -> float:
        """Collectives one after the other, of a value of which a chip holds ``held``."""
        return sum(self.seconds(*each[:2], held(self.size(each.rows), self.size(each.columns))) for each in steps)
