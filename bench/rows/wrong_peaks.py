"""Withholds shares of a peak from tables and figures where a program exceeds that peak.

All points of a process share the peaks that it measured: one that a single program exceeds is too low, and so is every
other share of it. A peak of a datasheet is not rejected, only the share of the row itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.rows.plausible import MBU_WITHHELD, MFU_WITHHELD
from engines.core.row import Row


@dataclass(frozen=True, slots=True)
class Share:
    """A share of a peak under its row key, with the keys of its peak, of the same rate as measured, and of its share.

    ``withheld`` is the key of ``details`` with the reason why a row does not have it.
    """

    name: str
    peak: str
    measured: str
    of_measured: str
    withheld: str
    reason: str

    def peak_measured(self, row: Row) -> tuple[Any, ...] | None:
        """A key shared by all rows of one measured peak; None if the peak is from a datasheet."""
        peak = getattr(row, self.peak)
        if peak is None or peak != getattr(row, self.measured):
            return None
        return (row.source, row.engine, row.hw, row.num_chips, peak)

    def is_above_one(self, row: Row) -> bool:
        """Whether the row's program exceeds the peak."""
        value = getattr(row, self.name)
        return value is not None and value > 1

    def without(self, row: Row) -> Row:
        """The row without its share, with the reason."""
        empty: dict[str, Any] = {self.name: None, self.of_measured: None}
        return replace(row, **empty, details={**row.details, self.withheld: self.reason})


MFU: Final = Share(
    "mfu",
    "peak_flops_per_s",
    "measured_matmul_flops_per_s",
    "mfu_of_matmul",
    MFU_WITHHELD,
    "no MFU: a program exceeds the peak, so the peak is too low",
)
MBU: Final = Share(
    "mbu",
    "hbm_bytes_per_s",
    "measured_copy_bytes_per_s",
    "mbu_of_copy",
    MBU_WITHHELD,
    "no MBU: a program exceeds the bandwidth, so the bandwidth is too low",
)


def withhold_wrong_shares(rows: Sequence[Row]) -> list[Row]:
    """The rows, without the MFU or MBU of rows whose own is above 1 or whose measured peak another row exceeds."""
    found = list(rows)
    for share in (MFU, MBU):
        rejected = {share.peak_measured(row) for row in found if share.is_above_one(row)} - {None}
        found = [
            share.without(row)
            if getattr(row, share.name) is not None
            and (share.is_above_one(row) or share.peak_measured(row) in rejected)
            else row
            for row in found
        ]
    return found
