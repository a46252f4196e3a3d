"""The published rows of ``data/*.csv``."""

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from engines.core.keys import parse
from engines.core.point import Point
from engines.core.row import Status
from engines.published.systems import runtime_of

TIMED_FILES: Final = (
    "paper_table2.csv",
    "paper_table3.csv",
    "paper_table_d2.csv",
    "paper_table_d3.csv",
    "paper_table_d4.csv",
    "fastertransformer_mt-nlg-530b.csv",
    "fastertransformer_gpt-20b.csv",
    "fastertransformer_other_models.csv",
    "fastertransformer_bert-6b.csv",
    "megatron.csv",
    "deepspeed_bloom.csv",
    "transformers.csv",
    "gpt-fast.csv",
    "lmdeploy_0.2.csv",
    "tensorrt-llm_0.5.csv",
    "tensorrt-llm_0.6.csv",
    "tensorrt-llm_h200.csv",
    "jax-llm-examples.csv",
    "maxtext.csv",
)
CHIP_AND_MODEL: Final = ("model", "hw")
NAMES: Final = (*CHIP_AND_MODEL, "runtime")
"""Keys of a point that a table states by a choice's name; ``runtime`` where ``system`` names one that is known."""
SIZE: Final = (*CHIP_AND_MODEL, "num_chips", "phase", "batch_size", "input_len")
"""Keys that every published row states, by which rows are found quickly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One line of a published table. ``stated`` holds the keys of the point that the source states, and no others.

    ``latency_s`` is in seconds for the whole phase, ``mfu`` a fraction; each is None if the source does not state it.
    ``doubt`` says what is uncertain about the row, and is empty where nothing is known to be.
    """

    reference: str
    system: str
    stated: Mapping[str, Any]
    latency_s: float | None
    mfu: float | None
    status: Status
    doubt: str = ""

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
    return tuple(row for name in TIMED_FILES for row in rows_in(name))


@cache
def rows_in(name: str) -> tuple[PublishedRow, ...]:
    """The rows of one file of ``data/``, in its order: the first is line 2."""
    return tuple(_row(cells) for cells in read_table(name))


def rows_of(point: Point) -> list[PublishedRow]:
    """The published rows that are a result for ``point``, in file order."""
    near = _by_size().get(tuple(point.axes()[key] for key in SIZE), [])
    return [row for row in near if row.matches(point)]


@cache
def _by_size() -> dict[tuple[Any, ...], list[PublishedRow]]:
    found: dict[tuple[Any, ...], list[PublishedRow]] = defaultdict(list)
    for row in published_rows():
        found[tuple(row.stated[key] for key in SIZE)].append(row)
    return dict(found)


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
    runtime = runtime_of(cells["system"])
    if runtime is not None:
        stated["runtime"] = runtime
    return PublishedRow(
        reference=cells["source"],
        system=cells["system"],
        stated=stated,
        latency_s=float(cells["latency_s"]) if cells["latency_s"] else None,
        mfu=float(cells["mfu"]) if cells["mfu"] else None,
        status="oom" if cells["status"] == "oom" else "ok",
        doubt=cells.get("doubt", ""),
    )
