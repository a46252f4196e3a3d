"""The best choice of shardings, as an integer program solved by HiGHS.

As in Alpa (Zheng et al. 2022, section 4.2) every operator has one of its shardings, and every pair of neighbours one
pair of them; here the pairs are tied to the operators by their marginals, which leaves the relaxation tighter. Time
that prefetching hides is a minimum of two sums, so that the time of a pass is a maximum of two and the program stays
linear.
"""

from typing import Final

import numpy as np

from engines.analytic.alpa.graph import Choice, Graph
from engines.core.errors import OutOfMemory, ShardbenchError

UNIT_S: Final = 1e-6
UNIT_BYTES: Final = 1e9
INFEASIBLE: Final = 2
"""Status of SciPy's milp where no choice fits."""


def best_choice(graph: Graph, *, time_limit_s: float | None = None) -> Choice:
    """The choice of least :meth:`engines.analytic.alpa.graph.Graph.seconds` that fits in memory.

    Raises:
        OutOfMemory: none fits.
        ShardbenchError: SciPy is not installed, or found none within ``time_limit_s``.
    """
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array
    except ImportError:
        raise ShardbenchError("planner=alpa: needs SciPy; pip install 'shardbench[fit]'") from None
    sizes = [len(each.shardings) for each in graph.operators]
    starts = dict(zip((each.name for each in graph.operators), np.cumsum([0, *sizes]), strict=False))
    count = sum(sizes)
    pairs = [np.arange(each.waiting_s.size).reshape(each.waiting_s.shape) for each in graph.edges]
    edge_starts = count + np.cumsum([0, *(each.size for each in pairs)])
    total = int(edge_starts[-1]) + 1  # the last is what waiting adds
    busy, waiting, fetched = np.zeros(total), np.zeros(total), np.zeros(total)
    for each, start in zip(graph.operators, starts.values(), strict=True):
        place = slice(start, start + len(each.shardings))
        busy[place], waiting[place], fetched[place] = each.busy_s, each.waiting_s, each.fetched_s
    for edge, start in zip(graph.edges, edge_starts, strict=False):
        place = slice(int(start), int(start) + edge.waiting_s.size)
        busy[place], waiting[place] = edge.memory_s.ravel(), edge.waiting_s.ravel()

    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    values: list[np.ndarray] = []
    low: list[float] = []
    high: list[float] = []

    def add(at: np.ndarray, factors: np.ndarray, least: float, most: float) -> None:
        rows.append(np.full(at.size, len(low)))
        columns.append(at)
        values.append(factors)
        low.append(least)
        high.append(most)

    for each in graph.operators:
        at = starts[each.name] + np.arange(len(each.shardings))
        add(at, np.ones(at.size), 1, 1)
    for edge, grid, start in zip(graph.edges, pairs, edge_starts, strict=False):
        for end, lines in zip(edge.ends, (grid, grid.T), strict=True):
            for sharding, line in enumerate(lines):
                at = np.append(int(start) + line, starts[end] + sharding)
                add(at, np.append(np.ones(line.size), -1.0), 0, 0)
    every, fixed = np.arange(total), graph.fixed_s / UNIT_S
    for share, hidden in ((1 - graph.prefetch, 0.0), (1.0, graph.prefetch)):
        # waiting ≥ (1 − p)·(sent + fixed), and ≥ sent + fixed − p·fetched
        line = (share * waiting - hidden * fetched) / UNIT_S
        line[-1] = -1.0
        kept = np.flatnonzero(line)
        add(every[kept], line[kept], -np.inf, -share * fixed)
    held = np.zeros(total)
    for each in graph.operators:
        held[starts[each.name] + np.arange(len(each.shardings))] = each.held_bytes
    room = (graph.usable_bytes - graph.constant_bytes) / UNIT_BYTES
    for each in graph.operators:
        if np.any(each.work_bytes) or each is graph.operators[0]:
            line = held.copy()
            line[starts[each.name] + np.arange(len(each.shardings))] += each.work_bytes
            kept = np.flatnonzero(line)
            add(every[kept], line[kept] / UNIT_BYTES, -np.inf, room)

    matrix = coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(low), total)
    ).tocsr()
    objective = busy / UNIT_S
    objective[-1] = 1.0
    integer = np.zeros(total)
    integer[:count] = 1
    upper = np.ones(total)
    upper[-1] = np.inf
    options: dict[str, float] = {"mip_rel_gap": 0.0}
    if time_limit_s is not None:
        options["time_limit"] = time_limit_s
    found = milp(
        objective,
        constraints=LinearConstraint(matrix, np.asarray(low), np.asarray(high)),
        integrality=integer,
        bounds=Bounds(np.zeros(total), upper),
        options=options,
    )
    if found.x is None:
        if found.status == INFEASIBLE:
            raise OutOfMemory("planner=alpa: no shardings of the operators fit in a chip's memory; use more chips")
        raise ShardbenchError(f"planner=alpa: HiGHS found no plan: {found.message}")
    return {
        each.name: each.shardings[int(np.argmax(found.x[starts[each.name] : starts[each.name] + size]))]
        for each, size in zip(graph.operators, sizes, strict=True)
    }
