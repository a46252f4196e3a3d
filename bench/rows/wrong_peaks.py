"""Withholds MFU above 1: the peak is then too low, and so is every MFU relative to that peak."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from bench.rows.labels import answered
from engines.core.row import Row

WITHHELD: Final = "mfu_withheld"
"""Key of ``details`` with the reason why a row has no MFU."""
REASON: Final = "no MFU: a program exceeds the peak, so the peak is too low"


def withhold_wrong_mfu(rows: Sequence[Row]) -> list[Row]:
    """The rows, without the MFU of rows whose own is above 1 or whose measured peak another row exceeds.

    All points of a process share the peak that it measured, so one row is enough to reject it. A datasheet peak is not
    rejected, only the MFU of the row itself.
    """
    above_one = [row for row in rows if answered(row) and row.mfu is not None and row.mfu > 1]
    rejected = {_measured_peak(row) for row in above_one} - {None}
    return [
        replace(row, mfu=None, mfu_of_matmul=None, details={**row.details, WITHHELD: REASON})
        if row.mfu is not None and (row.mfu > 1 or _measured_peak(row) in rejected)
        else row
        for row in rows
    ]


def _measured_peak(row: Row) -> tuple[Any, ...] | None:
    """A key shared by all rows of one measured peak; None if the peak is from a datasheet."""
    if row.peak_flops_per_s is None or row.peak_flops_per_s != row.measured_matmul_flops_per_s:
        return None
    return (row.source, row.engine, row.hw, row.num_chips, row.peak_flops_per_s)
