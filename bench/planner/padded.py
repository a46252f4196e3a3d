"""Batches padded with sequences that nobody waits for, where chips split a larger batch and not the asked one.

Attention over the batch and gathered weights need as many sequences on every chip of a torus, and groups of a GPU's
ranks that attend to sequences of their own need one each. A batch that does not split takes
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
    """The plans, and each again for every larger batch that its chips split and not the asked one."""
    entries = [
        (position, run)
        for position, (index, batch) in enumerate(zip(ways.index, ways.grid.batch, strict=True))
        for run in (int(batch), *larger_batches(int(batch), ways.points[int(index)]))
    ]
    positions = np.asarray([position for position, _ in entries])
    grid = replace(ways.grid.take(positions), batch=np.asarray([float(run) for _, run in entries]))
    return Ways(ways.points, grid, ways.index[positions], ways.sequences[positions])


def larger_batches(batch: int, point: Point) -> list[int]:
    """The batches above ``batch``, ascending, that the point's chips split in a way that they do not split it.

    Groups of a GPU's ranks take any number of sequences from one each on; only experts and latent attention have them.
    """
    if point.chip.kind != "gpu":
        return padded_batches(batch, point.mesh)
    if point.model.experts is None and not point.model.attention.is_latent:
        return []
    return [count for power in range(point.tensor_degree.bit_length()) if (count := 2**power) > batch]


def padded_batches(batch: int, mesh: MeshShape) -> list[int]:
    """The least batches above ``batch`` that the chips of one axis, of two or of three split, ascending."""
    sizes = {prod(axes) for count in (1, 2, 3) for axes in combinations(mesh, count)}
    return sorted({-(-batch // size) * size for size in sizes} - {batch})
