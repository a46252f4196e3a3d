"""The published rows of ``data/*.csv``."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from engines.core.keys import parse
from engines.core.point import Point
from engines.core.row import Status

TIMED_FILES: Final = (
    "paper_table2.csv",
    "paper_table_d3.csv",
    "fastertransformer_mt-nlg-530b.csv",
    "fastertransformer_gpt-20b.csv",
)
CHIP_AND_MODEL: Final = ("model", "hw")
NAMES: Final = (*CHIP_AND_MODEL, "runtime")
"""Keys of a point that a table states by a choice's name; ``runtime`` where ``system`` names one that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One line of a published table. ``stated`` holds the keys of the point that the source states, and no others.

    ``latency_s`` is in seconds for the whole phase, ``mfu`` a fraction; each is None if the source does not state it.
    """

    reference: str
    system: str
    stated: Mapping[str, Any]
    latency_s: float | None
    mfu: float | None
    status: Status

    def matches(self, point: Point) -> bool:
        """Whether this row is a result for ``point``.

        Every key that the source states must equal the point's, or be ``auto`` or None in the point. Every other key
        must have its default in the point.
        """
        requested = point.axes()
        if any(requested[key] not in (None, "auto", value) for key, value in self.stated.items()):
            return False
        if point.runtime is not None and "runtime" not in self.stated:
            return False
        unstated = {name: key.default for name, key in point.schema().items() if name not in self.stated}
        return replace(point, **unstated) == point


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Every published row with a time or an out-of-memory status, in file order."""
    return tuple(_row(cells) for name in TIMED_FILES for cells in read_table(name))


@cache
def columns() -> tuple[str, ...]:
    """The columns that all published tables of times share, in order."""
    headers = [tuple(read_table(name)[0]) for name in TIMED_FILES]
    return tuple(column for column in headers[0] if all(column in header for header in headers))


def tables() -> dict[str, Path]:
    """The published tables of times by the name that a user gives: ``paper-table2`` → its file."""
    folder = Path(str(files("engines.published") / "data"))
    return {name.removesuffix(".csv").replace("_", "-"): folder / name for name in TIMED_FILES}


def read_table(name: str) -> list[dict[str, str]]:
    """The cells of one file of ``data/`` as text, one dictionary per line."""
    text = (files("engines.published") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _row(cells: Mapping[str, str]) -> PublishedRow:
    stated = {**{name: cells[name] for name in CHIP_AND_MODEL}, **parse(Point.schema(), cells)}
    return PublishedRow(
        reference=cells["source"],
        system=cells["system"],
        stated=stated,
        latency_s=float(cells["latency_s"]) if cells["latency_s"] else None,
        mfu=float(cells["mfu"]) if cells["mfu"] else None,
        status="oom" if cells["status"] == "oom" else "ok",
    )
