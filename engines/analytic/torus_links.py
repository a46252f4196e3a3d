"""The links of a TPU torus: how long collectives along mesh axes take, arrays [points]."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from engines.analytic.grid import Floats, Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTransfers:
    """Communication of one layer: seconds of transfer, and seconds before first bytes."""

    transfer_s: Floats
    start_s: Floats

    @property
    def total_s(self) -> Floats:
        """Both."""
        return self.transfer_s + self.start_s

    def __add__(self, other: Self) -> Self:
        """One after the other."""
        return type(self)(transfer_s=self.transfer_s + other.transfer_s, start_s=self.start_s + other.start_s)

    def times(self, count: Floats) -> Self:
        """``count`` times in a row."""
        return type(self)(transfer_s=self.transfer_s * count, start_s=self.start_s * count)

    def where(self, chosen: np.ndarray, other: Self) -> Self:
        """self where ``chosen``, ``other`` elsewhere."""
        return type(self)(
            transfer_s=np.where(chosen, self.transfer_s, other.transfer_s),
            start_s=np.where(chosen, self.start_s, other.start_s),
        )


def nothing() -> LayerTransfers:
    """No communication."""
    return LayerTransfers(transfer_s=np.zeros(1), start_s=np.zeros(1))


def size_of(grid: Grid, axes: str) -> Floats:
    """Chips along ``axes``."""
    size: Floats = np.ones(1)
    for axis in axes:
        size = size * getattr(grid, axis)
    return size


def bandwidth(grid: Grid, axes: str) -> Floats:
    """Bytes/s that a chip receives in a collective along ``axes``; infinite where they hold one chip.

    Along one axis two links of a ring (one where the loop goes one way), or one of a line, whose last chip
    has a single neighbor. Each further axis adds ``axis_gain`` of its own links: at 1 the phases along all axes run in
    parallel (90, 180 and 270 GB/s on TPU v4, as Pope et al. 2022 count links), at 0 one axis after the other.
    """
    first = np.zeros(1)
    total = np.zeros(1)
    for axis in axes:
        links = np.minimum(getattr(grid, f"links_{axis}"), grid.directions)
        first = np.maximum(first, links)
        total = total + links
    used = first + grid.axis_gain * (total - first)
    return np.where(used > 0, used, np.inf) * grid.link_bytes_per_s * grid.link_efficiency


def transfer_s(grid: Grid, axes: str, size_bytes: Floats) -> Floats:
    """All-gather or reduce-scatter along ``axes``: ``size_bytes`` is the larger side, a chip's gathered tensor.

    size · (k − 1)/k / bandwidth with k chips along the axes: a chip has its own part already (Pope et al. 2022,
    appendix A.1, who then take (k − 1)/k as 1).
    """
    shards = size_of(grid, axes)
    return size_bytes * (1 - 1 / shards) / bandwidth(grid, axes)


def all_to_all_s(grid: Grid, axes: str, size_bytes: Floats) -> Floats:
    """All-to-all along ``axes`` of ``size_bytes`` that a chip holds, transfer only.

    Every piece is routed straight to its chip. Along a ring of k it goes k/4 hops on average over two links, along a
    line k/3 over one, and each link carries an equal part; the axes work in parallel, so the longest decides.
    """
    slowest: Floats = np.zeros(1)
    for axis in axes:
        size, links = getattr(grid, axis), getattr(grid, f"links_{axis}")
        hops_per_link = np.where(links == 2, size / 8, size / 3)
        slowest = np.maximum(slowest, np.where(links > 0, hops_per_link, 0.0))
    return size_bytes * slowest / (grid.link_bytes_per_s * grid.link_efficiency)


def hops(grid: Grid, axes: str) -> Floats:
    """Hops to the farthest chip along ``axes``: k/2 along a ring, k − 1 along a line."""
    total: Floats = np.zeros(1)
    for axis in axes:
        size, links = getattr(grid, axis), getattr(grid, f"links_{axis}")
        total = total + np.where(links == 2, size / 2, size - 1)
    return total


def start_s(grid: Grid, axes: str) -> Floats:
    """Time of an all-gather or reduce-scatter along ``axes`` besides its bytes, zero where there is one chip.

    collective_s for the phase along each axis of several chips, and hop_s for each of :func:`hops`.
    """
    phases = sum((getattr(grid, axis) > 1 for axis in axes), start=np.zeros(1))
    return grid.collective_s * phases + grid.hop_s * hops(grid, axes)


def gathering(grid: Grid, axes: str, size_bytes: Floats) -> LayerTransfers:
    """An all-gather or reduce-scatter along ``axes``: :func:`transfer_s` and :func:`start_s`."""
    return LayerTransfers(transfer_s=transfer_s(grid, axes, size_bytes), start_s=start_s(grid, axes))


def exchange(grid: Grid, axes: str, size_bytes: Floats) -> LayerTransfers:
    """An all-to-all along ``axes`` of ``size_bytes`` that a chip holds, which starts once."""
    several = size_of(grid, axes) > 1
    return LayerTransfers(
        transfer_s=all_to_all_s(grid, axes, size_bytes),
        start_s=np.where(several, grid.collective_s + grid.hop_s * hops(grid, axes), 0.0),
    )
