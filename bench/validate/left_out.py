"""What the closed forms err on published rows whose source is left out of the fit of their constants."""

import csv
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple

from engines.core.row import Row
from engines.published.table import SIZE, PublishedRow, rows_in

FILE: Final = "left_out.csv"
"""Beside the constants: ``file`` and ``line`` of a published row, and ``error_left_out`` as a fraction."""
KEYS: Final = ("reference", "system", *SIZE)


class LeftOut(NamedTuple):
    """A published row, and the signed relative error of its prediction without its source."""

    row: PublishedRow
    error: float


def stored_errors() -> list[LeftOut]:
    """What the fit of the constants stored; nothing where it was not done without sources."""
    return [LeftOut(rows_in(file)[line - 2], error) for (file, line), error in errors_by_line().items()]


def errors_by_line() -> dict[tuple[str, int], float]:
    """File and line of a published table → what the fit without its source errs there."""
    stored = files("engines.analytic") / "constants" / FILE
    if not stored.is_file():
        return {}
    lines = csv.DictReader(stored.read_text(encoding="utf-8").splitlines())
    return {(cells["file"], int(cells["line"])): float(cells["error_left_out"]) for cells in lines}


def left_out_errors(rows: Sequence[Row], told: Iterable[LeftOut]) -> dict[str, float]:
    """``point_id`` → error, of those stored rows that are one of the published rows ``told`` of."""
    near: dict[tuple[Any, ...], list[LeftOut]] = {}
    for each in told:
        values = {**each.row.stated, "reference": each.row.reference, "system": each.row.system}
        near.setdefault(tuple(values[key] for key in KEYS), []).append(each)
    found = {}
    for row in rows:
        for published, error in near.get(tuple(getattr(row, key) for key in KEYS), []):
            if all(getattr(row, key) == value for key, value in published.stated.items()):
                found[row.point_id] = error
    return found
