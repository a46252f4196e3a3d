"""Where the rows come from: machines, code, versions, and the constants behind predictions."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.rows.table import Column, Table
from engines.core.row import Row


def environment_table(rows: Sequence[Row]) -> Table:
    """Rows by kind, engine, machine, code and versions."""
    counts: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        commit = (row.git_sha or "")[:12] + (", changed" if row.git_dirty else "")
        versions = ", ".join(f"{name} {version}" for name, version in sorted(row.versions.items()) if version)
        counts[(row.source, row.engine, row.host or "", row.device_kind or "", commit, versions)] += 1
    keys = ("source", "engine", "host", "device_kind", "git_sha", "versions")
    return Table(
        name="environment",
        caption="Where the rows were made",
        columns=[*(Column(key) for key in keys), Column("rows", "rows", 1.0, ".0f")],
        rows=[dict(zip(keys, key, strict=True)) | {"rows": count} for key, count in sorted(counts.items())],
    )


def calibration_table(rows: Sequence[Row]) -> Table | None:
    """The constants behind the rows (``details["calibration"]``), by engine and chip; None without any."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        fitted = row.details.get("calibration")
        if fitted:
            counts[(row.engine, row.hw, _text(fitted))] += 1
    if not counts:
        return None
    keys = ("engine", "hw", "calibration")
    return Table(
        name="calibration",
        caption="Constants of the predictions, and the rows that they were fitted to",
        columns=[*(Column(key) for key in keys), Column("rows", "rows", 1.0, ".0f")],
        rows=[dict(zip(keys, key, strict=True)) | {"rows": count} for key, count in sorted(counts.items())],
    )


def _text(fitted: Any) -> str:
    if isinstance(fitted, str):
        return fitted
    if not isinstance(fitted, dict) or "constants" not in fitted:
        return json.dumps(fitted, sort_keys=True, ensure_ascii=False)
    rows = ", ".join(f"{count} of {source}" for source, count in sorted(fitted.get("rows", {}).items()))
    left_out = fitted.get("error_without_source", {})
    errors = ", ".join(f"{source} {error:.1%}" for source, error in sorted(left_out.items()))
    return f"constants of {fitted['constants']}, fitted to {rows}; mean error without a source's own rows: {errors}"
