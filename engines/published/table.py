"""The published rows as they stand in ``data/*.csv``."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One line of a published table. ``question`` holds the keys of the point that the source states, and no others."""

    reference: str
    system: str
    question: Mapping[str, Any]
    latency_s: float | None
    mfu: float | None
    status: Status

    def answers(self, point: Point) -> bool:
        """Whether this is the answer to ``point``.

        It is where every key that the source states is asked for, or is left open by the point. A choice that the
        point makes and the source does not state is not answered.
        """
        asked = point.axes()
        if any(asked[key] not in (None, "auto", stated) for key, stated in self.question.items()):
            return False
        unstated = {name: key.default for name, key in point.schema().items() if name not in self.question}
        return replace(point, **unstated) == point


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Every published row that states a time or an out-of-memory, in file order."""
    return tuple(_row(cells) for name in TIMED_FILES for cells in read_table(name))


@cache
def columns() -> tuple[str, ...]:
    """The columns that every published table of times has, in their order."""
    headers = [tuple(read_table(name)[0]) for name in TIMED_FILES]
    return tuple(column for column in headers[0] if all(column in header for header in headers))


def read_table(name: str) -> list[dict[str, str]]:
    """The cells of one file of ``data/`` as text, one dictionary a line."""
    text = (files("engines.published") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _row(cells: Mapping[str, str]) -> PublishedRow:
    question = {**{name: cells[name] for name in CHIP_AND_MODEL}, **parse(Point.schema(), cells)}
    return PublishedRow(
        reference=cells["source"],
        system=cells["system"],
        question=question,
        latency_s=float(cells["latency_s"]) if cells["latency_s"] else None,
        mfu=float(cells["mfu"]) if cells["mfu"] else None,
        status="oom" if cells["status"] == "oom" else "ok",
    )
