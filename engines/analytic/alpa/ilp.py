"""The best choice of shardings, as an integer program solved by HiGHS.

As in Alpa (Zheng et al. 2022, section 4.2) every operator has one of its shardings, and every pair of neighbours one
pair of them; here the pairs are tied to the operators by their marginals, which leaves the relaxation tighter. Time
that prefetching hides is a minimum of two sums, so that the time of a pass is a maximum of two and the program stays
linear.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from engines.analytic.alpa.graph import Choice, Floats, Graph
from engines.core.errors import OutOfMemory, ShardbenchError
from engines.host.native_output import on_stderr

UNIT_S: Final = 1e-6
UNIT_BYTES: Final = 1e9
INFEASIBLE: Final = 2
"""Status of SciPy's milp where no choice fits."""


def best_choice(graph: Graph, *later: tuple[float, Graph], time_limit_s: float | None = None) -> Choice:
    """The choice of least :meth:`engines.analytic.alpa.graph.Graph.seconds` that fits in memory.

    ``later`` are other passes of the same operators and shardings, with how often they run: their seconds are added,
    and all of them fit.

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
    passes = [(1.0, graph), *later]
    total = int(edge_starts[-1]) + len(passes)  # the last are what waiting adds to each pass

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
    every, objective = np.arange(total), np.zeros(total)
    for number, (times, one) in enumerate(passes):
        adds = total - len(passes) + number
        busy, waiting, fetched = _sums(one, starts, edge_starts, total)
        objective += times * busy / UNIT_S
        objective[adds] = times
        for share, hidden in ((1 - one.prefetch, 0.0), (1.0, one.prefetch)):
            # waiting ≥ (1 − p)·(sent + fixed), and ≥ sent + fixed − p·fetched
            line = (share * waiting - hidden * fetched) / UNIT_S
            line[adds] = -1.0
            kept = np.flatnonzero(line)
            add(every[kept], line[kept], -np.inf, -share * one.fixed_s / UNIT_S)
        for line in _held(one, starts, total):
            kept = np.flatnonzero(line)
            add(every[kept], line[kept] / UNIT_BYTES, -np.inf, (one.usable_bytes - one.constant_bytes) / UNIT_BYTES)

    matrix = coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(low), total)
    ).tocsr()
    integer = np.zeros(total)
    integer[:count] = 1
    upper = np.ones(total)
    upper[-len(passes) :] = np.inf
    options: dict[str, float] = {"mip_rel_gap": 0.0}
    if time_limit_s is not None:
        options["time_limit"] = time_limit_s
    with on_stderr():
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


def _sums(graph: Graph, starts: Mapping[str, int], edge_starts: Floats, total: int) -> tuple[Floats, Floats, Floats]:
    """Seconds that every variable adds to what a pass computes, waits for and fetches."""
    busy, waiting, fetched = np.zeros(total), np.zeros(total), np.zeros(total)
    for each, start in zip(graph.operators, starts.values(), strict=True):
        place = slice(start, start + len(each.shardings))
        busy[place], waiting[place], fetched[place] = each.busy_s, each.waiting_s, each.fetched_s
    for edge, first in zip(graph.edges, edge_starts, strict=False):
        place = slice(int(first), int(first) + edge.waiting_s.size)
        busy[place], waiting[place] = edge.memory_s.ravel(), edge.waiting_s.ravel()
    return busy, waiting, fetched


def _held(graph: Graph, starts: Mapping[str, int], total: int) -> Iterator[Floats]:
    """Bytes that every variable holds while each operator runs."""
    held = np.zeros(total)
    for each in graph.operators:
        held[starts[each.name] + np.arange(len(each.shardings))] = each.held_bytes
    for each in graph.operators:
        if np.any(each.work_bytes) or each is graph.operators[0]:
            line = held.copy()
            line[starts[each.name] + np.arange(len(each.shardings))] += each.work_bytes
            yield line
