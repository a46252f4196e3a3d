"""The Pareto frontier of time and cost: rows that no other row beats in both."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from bench.rows.labels import answered
from bench.rows.methods import method_label
from engines.core.row import Row


def time_of(row: Row) -> float | None:
    """The time of a decode step for a decode row, else of the whole phase, in seconds."""
    return row.step_time_s if row.phase == "decode" else row.latency_s


def frontier(rows: Sequence[Row]) -> list[Row]:
    """The Pareto-optimal rows by :func:`time_of` and ``cost_chip_s_per_token``, the fastest first."""
    known = [
        (seconds, row.cost_chip_s_per_token, row)
        for row in rows
        if answered(row) and (seconds := time_of(row)) is not None and row.cost_chip_s_per_token is not None
    ]
    best: list[Row] = []
    least = float("inf")
    for _, cost, row in sorted(known, key=lambda each: each[:2]):
        if cost < least:
            best.append(row)
            least = cost
    return best


def workloads(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows grouped for one frontier each: by model, hardware, runtime, phase, lengths, dtypes, method and evidence."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        lengths = (row.input_len, row.output_len)
        dtypes = (row.weight_dtype, row.act_dtype, row.kv_dtype, row.weight_group_size, row.head_dtype)
        evidence = (method_label(row), row.source, row.engine)
        groups[(row.model, row.hw, row.runtime, row.phase, *lengths, *dtypes, *evidence)].append(row)
    return dict(groups)
