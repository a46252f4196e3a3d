"""Seconds of collectives along any axes of one slice or some GPU nodes, with the constants of the closed forms."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engines.analytic.alpa.roles import Sent
from engines.analytic.gpu_links import collective_s
from engines.analytic.grid import Grid
from engines.analytic.torus_links import exchange, gathering
from engines.core.layout import axes_size
from engines.core.slice import MeshShape

Local = Callable[[int, int], float]
"""(shards of rows, shards of columns) → bytes of a value that a chip holds."""
KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


def nodes_of(axes: str, mesh: MeshShape, node_size: int) -> int:
    """Nodes over which the GPUs along ``axes`` lie: z is fastest, and GPUs are counted node by node."""
    strides = dict(zip("xyz", (mesh[1] * mesh[2], mesh[2], 1), strict=True))
    steps = [[each * strides[axis] for each in range(mesh["xyz".index(axis)])] for axis in axes]
    return len({sum(each) // node_size for each in itertools.product(*steps)})


@dataclass(frozen=True)
class Network:
    """The links of the one point of ``grid``: of a torus, or the switches of GPU nodes and the network between them."""

    grid: Grid
    mesh: MeshShape

    @cached_property
    def _linear(self) -> dict[tuple[str, str], tuple[float, float]]:
        """(kind, axes) → seconds to start, seconds a byte: all kinds are linear in bytes."""
        every = [axes for count in range(4) for axes in map("".join, itertools.combinations("xyz", count))]
        timed = self._on_nodes if self._on_gpus else self._on_torus
        return {(kind, axes): timed(kind, axes) for kind in KINDS for axes in every}

    def _on_torus(self, kind: str, axes: str) -> tuple[float, float]:
        """An all-reduce is a reduce-scatter and an all-gather; a permute uses one link, and starts as an all-to-all."""
        grid = self.grid
        one = (gathering if kind in KINDS[:3] else exchange)(grid, axes, np.ones(1))
        start, each = float(np.ravel(one.start_s)[0]), float(np.ravel(one.transfer_s)[0])
        if kind == "collective-permute":
            return start, 1 / float(np.ravel(grid.link_bytes_per_s * grid.link_efficiency)[0])
        return (2 * start, 2 * each) if kind == "all-reduce" else (start, each)

    def _on_nodes(self, kind: str, axes: str) -> tuple[float, float]:
        count = self.size(axes)
        inside = count // nodes_of(axes, self.mesh, int(np.ravel(self.grid.node_size)[0]))
        each, start = collective_s(self.grid, kind, count, inside)
        return float(np.ravel(start)[0]), float(np.ravel(each)[0])

    @cached_property
    def _on_gpus(self) -> bool:
        return bool(np.all(self.grid.gpu))

    @cached_property
    def _stream(self) -> float:
        return float(np.ravel(self.grid.hbm_bytes_per_s * self.grid.hbm_efficiency)[0])

    def size(self, axes: str) -> int:
        """Chips along ``axes``."""
        return axes_size(axes, self.mesh)

    def seconds(self, kind: str, axes: str, size_bytes: float) -> float:
        """One collective whose payload takes ``size_bytes``; a copy reads and writes the payload.

        GPUs copy nothing: they gather along one dimension and then along the other, which starts once more.
        """
        if kind == "copy":
            return self._linear["all-gather", "xyz"][0] if self._on_gpus else 2 * size_bytes / self._stream
        start, each = self._linear[kind, axes]
        return start + each * size_bytes

    def total_s(self, steps: tuple[Sent, ...], held: Local) -> float:
        """Collectives one after the other, of a value of which a chip holds ``held``."""
        return sum(self.seconds(*each[:2], held(self.size(each.rows), self.size(each.columns))) for each in steps)
