"""Links of GPU nodes: collectives inside and between nodes, and what a pipeline stage hands on."""

import numpy as np

from engines.analytic.grid import Floats, Grid


def all_reduce_s(grid: Grid, size_bytes: Floats, ranks: Floats | None = None) -> tuple[Floats, Floats]:
    """All-reduce of ``size_bytes`` over the t ranks of a stage, or ``ranks`` of them: (transfer, start) in seconds.

    A ring moves 2·(t − 1)/t of the tensor past every rank (Patarasuk and Yuan 2009): inside a node over the switch,
    across nodes over the network cards of all node_size ranks at once. It starts after collective_s and 2·(t − 1) hops
    inside a node, and network_collective_s more where it leaves it. One rank sends nothing, whatever its links.
    """
    count = grid.tensor if ranks is None else ranks
    inside = grid.link_bytes_per_s * grid.link_efficiency
    across = grid.node_size * grid.network_bytes_per_s * grid.network_efficiency
    spans = count > grid.node_size
    rate = np.where(count > 1, np.where(spans, across, inside), 1.0)
    transfer = 2 * (1 - 1 / count) * size_bytes / rate
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


def collective_s(grid: Grid, kind: str, count: int, inside: int) -> tuple[Floats, Floats]:
    """A collective of ``count`` GPUs, ``inside`` of them in each node: (seconds a byte, start in seconds).

    Rings of an all-gather, a reduce-scatter and an all-reduce as in :func:`all_reduce_s`, which takes twice the others'
    bytes and steps; across nodes each goes through the cards of its ``inside`` GPUs, and no faster than the switch.
    In an all-to-all and a permute every GPU sends what is for other nodes through its own card, the rest over the
    switch, at the same time. Bytes are those of :class:`engines.core.volume.Payload`.
    """
    if count == 1:
        return np.zeros(1), np.zeros(1)
    switch = grid.link_bytes_per_s * grid.link_efficiency
    card = grid.network_bytes_per_s * grid.network_efficiency
    nodes = count // inside
    start = grid.collective_s + (grid.network_collective_s if nodes > 1 else 0.0)
    if kind == "collective-permute":
        return 1 / (card if nodes > 1 else switch), start + grid.hop_s
    if kind == "all-to-all":
        remote = (1 - 1 / nodes) / card if nodes > 1 else np.zeros(1)
        return np.maximum((inside - 1) / count / switch, remote), start + grid.hop_s
    rounds = 2 if kind == "all-reduce" else 1
    rate = np.minimum(switch, inside * card) if nodes > 1 else switch
    return rounds * (1 - 1 / count) / rate, start + rounds * grid.hop_s * (inside - 1)
