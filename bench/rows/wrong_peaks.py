"""MFU that cannot be right: a figure above 1 says that its peak is too low, and so is every figure with that peak."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from bench.rows.labels import answered
from engines.core.row import Row

WITHHELD: Final = "mfu_withheld"
"""Key of ``details`` under which a row says why it shows no MFU."""
REASON: Final = "no MFU: a program exceeds the peak, so the peak is too low"


def withhold_wrong_mfu(rows: Sequence[Row]) -> list[Row]:
    """The rows, without the MFU of those whose own is above 1 or whose measured peak another row exceeds.

    A peak that an engine measured is one process's for all its points, so one row is enough to refute it; a datasheet's
    peak stands, and only the row itself is doubted.
    """
    wrong = [row for row in rows if answered(row) and row.mfu is not None and row.mfu > 1]
    refuted = {_measured_peak(row) for row in wrong} - {None}
    return [
        replace(row, mfu=None, mfu_of_matmul=None, details={**row.details, WITHHELD: REASON})
        if row.mfu is not None and (row.mfu > 1 or _measured_peak(row) in refuted)
        else row
        for row in rows
    ]


def _measured_peak(row: Row) -> tuple[Any, ...] | None:
    """What rows of one measured peak share; None where the peak is a datasheet's."""
    if row.peak_flops_per_s is None or row.peak_flops_per_s != row.measured_matmul_flops_per_s:
        return None
    return (row.source, row.engine, row.hw, row.num_chips, row.peak_flops_per_s)
