"""The nights in a folder: one store for each date."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.rows.claim import without_superseded
from bench.rows.store import Store, read_part
from engines.core.row import Row

DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """``rows`` in the order in which they were stored; ``damaged`` names each line that is none, and why.

    A night is its folder's date: a run that passes midnight is still one night.
    """

    day: str
    store: Path
    rows: Sequence[Row]
    damaged: Sequence[str] = ()


def read_nights(folder: Path, *, until: str | None = None) -> list[Night]:
    """The nights in ``folder`` with rows, oldest first, up to the date ``until``.

    A damaged row costs no other row: it is named in its night.
    """
    if not folder.is_dir():
        return []
    days = sorted(path for path in folder.iterdir() if DATE.fullmatch(path.name) and (path / "rows").is_dir())
    nights = [_night(path) for path in days if until is None or path.name <= until]
    return [night for night in nights if night.rows or night.damaged]


def _night(path: Path) -> Night:
    rows, damaged = [], []
    for part in Store(path).parts():
        for number, _, row, fault in read_part(part):
            if row is not None:
                rows.append(row)
            else:
                damaged.append(f"{part} line {number}: {fault}")
    return Night(day=path.name, store=path, rows=without_superseded(rows), damaged=damaged)
