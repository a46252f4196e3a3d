"""Which of a point's stored rows stands for it."""

from collections.abc import Iterable, Sequence
from typing import Final

from engines.core.row import Row

SAYS_NOTHING: Final = ("failed", "timeout")
"""Statuses of a run that was cut off, which tell nothing about the point."""


def standing_rows(rows: Iterable[Row]) -> dict[str, Row]:
    """point_id → the row that stands for it; rows come oldest first. See :func:`standing`."""
    found: dict[str, Row] = {}
    several: dict[str, list[Row]] = {}  # most points have one row
    for row in rows:
        first = found.setdefault(row.point_id, row)
        if first is not row:
            several.setdefault(row.point_id, [first]).append(row)
    return found | {key: standing(each) for key, each in several.items()}


def standing(rows: Sequence[Row]) -> Row:
    """The row that stands for a point, of all its rows, oldest first.

    1. A row that failed or timed out, or of an engine that refused the point without a program, stands only where
       there is no other; refused comes before failed.
    2. The newest other row says which program runs now. Among the rows of that program a valid one comes before all
       that are not.
    3. The newest of these.

    So a crash hides no measurement, and noise on the machine no quiet one; but a program that changed, and gives wrong
    output or no longer fits, is not hidden by what the program before it reached.
    """
    told = [row for row in rows if row.status in ("ok", "oom") or (row.status == "unsupported" and row.program_id)]
    told = told or [row for row in rows if row.status not in SAYS_NOTHING] or list(rows)
    same = [row for row in told if row.program_id == told[-1].program_id]
    return next((row for row in reversed(same) if row.status == "ok" and row.valid), same[-1])
