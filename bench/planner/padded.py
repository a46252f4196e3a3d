"""Batches padded with sequences that nobody waits for, where a mesh splits a larger batch and not the asked one.

Attention over the batch and gathered weights need as many sequences on every chip. A batch that does not split takes
another layout, or these with the sequences that are missing added: it then takes the time of the larger batch and no
more. So a smaller batch never takes longer than a larger one.
"""

from dataclasses import replace
from itertools import combinations
from math import prod

import numpy as np

from bench.planner.workload import Ways
from engines.core.point import Point
from engines.core.slice import MeshShape


def with_padding(ways: Ways) -> Ways:
    """The plans, and each of a torus again for every larger batch that some axes of its mesh split first."""
    entries = [
        (position, run)
        for position, (index, batch) in enumerate(zip(ways.index, ways.grid.batch, strict=True))
        for run in (int(batch), *padded_batches(int(batch), _mesh(ways.points[int(index)])))
    ]
    positions = np.asarray([position for position, _ in entries])
    grid = replace(ways.grid.take(positions), batch=np.asarray([float(run) for _, run in entries]))
    return Ways(ways.points, grid, ways.index[positions], ways.sequences[positions])


def _mesh(point: Point) -> MeshShape:
    """GPUs run a batch of any size: their groups of sequences are as near alike as they go."""
    return (1, 1, 1) if point.chip.kind == "gpu" else point.mesh


def padded_batches(batch: int, mesh: MeshShape) -> list[int]:
    """The least batches above ``batch`` that the chips of one axis, of two or of three split, ascending."""
    sizes = {prod(axes) for count in (1, 2, 3) for axes in combinations(mesh, count)}
    return sorted({-(-batch // size) * size for size in sizes} - {batch})
