"""A layer's experts on GPU nodes: expert parallelism over groups of ranks, tensor parallelism inside an expert.

T tokens of a micro-batch, k of N experts each. Where every rank has all tokens (``data`` = 1), or gathers them, each
computes what its experts make of them and the sum is an all-reduce; else each rank sends its own tokens to the ranks of
their experts and gets the results back (DeepSeek-V3, arXiv 2412.19437, section 3.2.2).
"""

from dataclasses import dataclass

import numpy as np

from engines.analytic.expert_load import busiest_hit, busiest_rows
from engines.analytic.gpu_links import all_reduce_s
from engines.analytic.gpu_ranks import Ranks
from engines.analytic.grid import Bools, Floats, Grid
from engines.core.layout import EXPERT_DISPATCHES


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertCost:
    """One layer's routed experts on the busiest rank: FLOPs, bytes of weights, elements of rows, seconds of sending.

    ``sends`` says whether tokens are sent by all-to-all rather than gathered.
    """

    flops: Floats
    weights_bytes: Floats
    row_elements: Floats
    communication_s: Floats
    rows: Floats
    sends: Bools


def expert_cost(grid: Grid, ranks: Ranks, tokens: Floats, of_group: Floats) -> ExpertCost:
    """One layer's routed experts for ``tokens`` of a micro-batch, ``of_group`` of which a rank attends to.

    Rows of each expert are multiplied in whole tiles of ``grouped_rows``; the weights of experts that are hit are read,
    and the router's on every rank.
    """
    inside = ranks.inside(grid)
    rows, hit = busiest_rows(grid, tokens, ranks.experts), busiest_hit(grid, tokens, ranks.experts)
    tiles = np.maximum(rows + hit * grid.grouped_rows / 2, hit * grid.grouped_rows)
    part, router = grid.expert_params / inside, grid.d_model * grid.num_experts
    columns = (grid.expert_inputs + grid.expert_hidden) / inside
    gathers = sum(all_reduce_s(grid, tokens * grid.d_model * grid.act_bytes), start=np.zeros(1))
    sends = sending_s(grid, ranks, tokens, of_group, rows)
    by_all_to_all = _sends(grid, ranks, gathers, sends)
    return ExpertCost(
        flops=2 * (np.where(grid.grouped_rows > 0, tiles, rows) * part + of_group * router),
        weights_bytes=hit * part * grid.weight_bytes + router * grid.act_bytes,
        row_elements=rows * (4 * grid.d_model + 2 * columns),
        communication_s=np.where(by_all_to_all, sends, gathers),
        rows=rows,
        sends=by_all_to_all,
    )


def _sends(grid: Grid, ranks: Ranks, gathers: Floats, sends: Floats) -> Bools:
    """Where tokens are sent: as asked, else where that takes less; only between ranks that have tokens of their own.

    An expert that several ranks share would have to be sent to all of them.
    """
    gather, all_to_all = (EXPERT_DISPATCHES.index(each) for each in ("gather", "all_to_all"))
    asked = np.where(grid.dispatch == gather, False, (grid.dispatch == all_to_all) | (sends < gathers))
    return np.asarray(asked & can_send(grid, ranks))


def can_send(grid: Grid, ranks: Ranks) -> Bools:
    """Whether ranks have tokens of their own to send, and experts of their own to send them to."""
    return np.asarray((ranks.data > 1) & (ranks.experts == grid.tensor))


def sending_s(grid: Grid, ranks: Ranks, tokens: Floats, of_group: Floats, rows: Floats) -> Floats:
    """Seconds of the all-to-alls to the experts and back.

    A rank has T/t tokens. Between nodes each is sent once to every other node that has one of its experts, of n nodes
    n·(1 − (1 − 1/n)^k), at most those of the groups of experts that routing keeps; inside a node it is handed on to each
    of its experts over the switch, at the same time. The busiest rank's share counts. Where several ranks attend to a
    sequence, they gather the results.
    """
    mine, per_token = tokens / grid.tensor, np.maximum(grid.experts_per_token, 1.0)
    local = np.minimum(grid.tensor, grid.node_size)
    nodes = np.ceil(grid.tensor / grid.node_size)
    met = nodes * (1 - (1 - 1 / nodes) ** per_token)
    kept = np.maximum(grid.expert_groups_kept * nodes / grid.expert_groups, 1.0)
    limited = np.where(grid.expert_groups > 1, np.minimum(met, kept), met)
    row = grid.d_model * grid.act_bytes
    uneven = rows / np.maximum(tokens * per_token / ranks.experts, 1e-12)
    remote = mine * limited * (1 - 1 / nodes) * row * uneven
    inside = mine * per_token * (1 - 1 / local) * row * uneven
    over_network = np.where(nodes > 1, remote, 0.0) / np.where(
        nodes > 1, grid.network_bytes_per_s * grid.network_efficiency, 1.0
    )
    over_switch = np.where(local > 1, inside, 0.0) / np.where(
        local > 1, grid.link_bytes_per_s * grid.link_efficiency, 1.0
    )
    start = grid.collective_s + grid.hop_s + np.where(nodes > 1, grid.network_collective_s, 0.0)
    shared = ranks.attention(grid)
    again = sum(all_reduce_s(grid, of_group * row, shared), start=np.zeros(1)) / 2
    return 2 * (np.maximum(over_network, over_switch) + start) + np.where(shared > 1, again, 0.0)
