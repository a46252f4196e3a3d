"""Rows as columns for the browser: each a dictionary of values with codes, or numbers as they are."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.rows.methods import method_label
from bench.rows.metrics import METRICS
from bench.rows.row_types import kinds_of_fields
from bench.rows.table import plain_text
from engines.core.row import POINT_FIELDS, Row

OUTCOMES: Final[Mapping[str, str]] = {
    "oom": "out of memory",
    "unsupported": "unsupported",
    "failed": "failed",
    "timeout": "timeout",
}
"""What a status other than ok is called, apart from the two of an answer: valid and not valid."""
NOT_COLUMNS: Final = frozenset(name for name, kinds in kinds_of_fields().items() if dict in kinds) | {
    "samples_s",
    "process_medians_s",
}
"""Fields that are shown with a single row alone, all mappings among them; ``versions`` has a column a library."""
MOST_OF_ROWS: Final = 0.25
"""Share of distinct numbers up to which a dictionary is smaller than the numbers themselves."""


def columns(rows: Sequence[Row], stores: Sequence[str], nights: Mapping[str, str]) -> dict[str, Any]:
    """All rows as columns, in their order; a column without any value is left out.

    Args:
        rows: the rows.
        stores: the store of each row.
        nights: store → its date, of those that are nights.

    Returns:
        ``length``; ``columns``, each with its ``name``, ``title``, ``kind`` (text or number), and either ``values``
        (distinct, null where there is none) with ``codes``, unsigned integers of ``bits`` in base64, or ``numbers``,
        little-endian float64 in base64, NaN where there is none. A metric has what a table prints it by.
    """
    found: dict[str, Sequence[Any]] = {
        "outcome": [outcome(row) for row in rows],
        "store": stores,
        "night": [nights.get(store) for store in stores],
        "method": [method_label(row) for row in rows],
    }
    kinds = {}
    for each in fields(Row):
        if each.name not in NOT_COLUMNS:
            found[each.name] = [getattr(row, each.name) for row in rows]
            kinds[each.name] = kinds_of_fields()[each.name]
    for library in sorted({name for row in rows for name in row.versions}):
        found[f"versions.{library}"] = [row.versions.get(library) for row in rows]
    made = []
    for name, values in found.items():
        kind = kinds.get(name, (str,))
        is_number = (float in kind or int in kind) and str not in kind
        column = _numbers(values) if is_number else _texts(values)
        if column is not None:
            made.append({"name": name, "title": name, **_metric(name), **column})
    return {"length": len(rows), "columns": made, "point": list(POINT_FIELDS)}


def outcome(row: Row) -> str:
    """Whether the row has an answer that may be believed, and else why there is none."""
    if row.status != "ok":
        return OUTCOMES[row.status]
    return "valid" if row.valid else "not valid"


def _metric(name: str) -> dict[str, Any]:
    metric = METRICS.get(name)
    if metric is None:
        return {}
    shown = {"title": metric.title, "scale": metric.scale, "spec": metric.spec, "unit": metric.unit}
    return {**shown, "better": metric.better, "formula": metric.formula, "needs": list(metric.needs)}


def _numbers(values: Sequence[Any]) -> dict[str, Any] | None:
    """Numbers; those that are not finite are none."""
    numbers = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    numbers[~np.isfinite(numbers)] = math.nan
    known = numbers[~np.isnan(numbers)]
    if not known.size:
        return None
    distinct = np.unique(known)
    if distinct.size > max(256, MOST_OF_ROWS * numbers.size):
        return {"kind": "number", "numbers": _base64(numbers.astype("<f8"))}
    codes = np.searchsorted(distinct, numbers)  # NaN is sorted last
    found: list[Any] = [
        int(value) if value.is_integer() and abs(value) < 2**53 else value for value in distinct.tolist()
    ]
    return {"kind": "number", **_coded([*found, None] if known.size < numbers.size else found, codes)}


def _texts(values: Sequence[Any]) -> dict[str, Any] | None:
    if any(isinstance(value, (list, bool)) for value in values):
        values = [_text(value) for value in values]
    distinct = {value: _text(value) for value in dict.fromkeys(values)}
    places = {text: place for place, text in enumerate(dict.fromkeys(distinct.values()))}
    if places.keys() <= {None}:
        return None
    place_of = {value: places[text] for value, text in distinct.items()}
    codes = np.fromiter(map(place_of.__getitem__, values), dtype=np.int64, count=len(values))
    return {"kind": "text", **_coded(list(places), codes)}


def _text(value: Any) -> str | None:
    if value is None or value in ("", []):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else plain_text(value)


def _coded(values: Sequence[Any], codes: npt.NDArray[np.int64]) -> dict[str, Any]:
    bits = next(bits for bits in (8, 16, 32) if len(values) <= 2**bits)
    return {"values": list(values), "bits": bits, "codes": _base64(codes.astype(f"<u{bits // 8}"))}


def _base64(numbers: npt.NDArray[Any]) -> str:
    return base64.b64encode(numbers.tobytes()).decode("ascii")
