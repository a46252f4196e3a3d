"""What the closed forms err on published rows whose source is left out of the fit of their constants."""

import csv
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from engines.core.row import Row
from engines.published.table import SIZE, PublishedRow, rows_in

FILE: Final = "left_out.csv"
"""Beside the constants that were fitted: ``file`` and ``line`` of a published row, and ``error_left_out``."""
KEYS: Final = ("reference", "system", *SIZE)


def left_out_errors(rows: Sequence[Row]) -> dict[str, float]:
    """``point_id`` of published rows → signed relative error of a prediction whose constants its source did not set.

    Rows of which the fit has none are left out.
    """
    stored = files("engines.analytic") / "constants" / FILE
    if not stored.is_file():
        return {}
    told: dict[tuple[Any, ...], list[tuple[PublishedRow, float]]] = {}
    for cells in csv.DictReader(stored.read_text(encoding="utf-8").splitlines()):
        row = rows_in(cells["file"])[int(cells["line"]) - 2]
        told.setdefault(_key(row.stated | {"reference": row.reference, "system": row.system}), []).append(
            (row, float(cells["error_left_out"]))
        )
    found = {}
    for stored_row in rows:
        for row, error in told.get(_key({key: getattr(stored_row, key) for key in KEYS}), []):
            if all(getattr(stored_row, key) == value for key, value in row.stated.items()):
                found[stored_row.point_id] = error
    return found


def _key(values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(values[key] for key in KEYS)
