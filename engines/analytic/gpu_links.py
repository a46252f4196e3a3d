"""Links of GPU nodes: all-reduces inside and between nodes, and what a pipeline stage hands on."""

import numpy as np

from engines.analytic.grid import Floats, Grid


def all_reduce_s(grid: Grid, size_bytes: Floats, ranks: Floats | None = None) -> tuple[Floats, Floats]:
    """All-reduce of ``size_bytes`` over the t ranks of a stage, or ``ranks`` of them: (transfer, start) in seconds.

    A ring moves 2·(t − 1)/t of the tensor past every rank (Patarasuk and Yuan 2009): inside a node over the switch,
    across nodes over the network cards of all node_size ranks at once. It starts after collective_s and 2·(t − 1) hops
    inside a node, and network_collective_s more where it leaves it.
    """
    count = grid.tensor if ranks is None else ranks
    inside = grid.link_bytes_per_s * grid.link_efficiency
    across = grid.node_size * grid.network_bytes_per_s * grid.network_efficiency
    spans = count > grid.node_size
    transfer = 2 * (1 - 1 / count) * size_bytes / np.where(spans, across, inside)
    inside_steps = 2 * (np.minimum(count, grid.node_size) - 1)
    start = np.where(spans, grid.network_collective_s, 0.0) + np.where(
        count > 1, grid.collective_s + grid.hop_s * inside_steps, 0.0
    )
    return transfer, start


def hand_over_s(grid: Grid, tokens: Floats) -> Floats:
    """Seconds in which a stage hands T·E to the next: over the switch where all are in one node, else the network.

    The ranks of a stage send in parallel, each through its own card.
    """
    inside = grid.link_bytes_per_s * grid.link_efficiency
    across = grid.network_bytes_per_s * grid.network_efficiency
    rate = np.where(grid.tensor * grid.pipeline > grid.node_size, across, inside)
    sent = tokens * grid.d_model * grid.act_bytes / np.minimum(grid.tensor, grid.node_size)
    return np.where(grid.pipeline > 1, sent / np.where(grid.pipeline > 1, rate, 1.0) + grid.stage_s, 0.0)
