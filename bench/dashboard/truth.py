"""What was computed of a point beside what was observed of it: the pairs of the page Truth."""

from collections.abc import Sequence
from typing import Any, Final

from bench.rows.labels import answered
from bench.rows.pairing import pair_up
from bench.rows.standing import standing_rows
from bench.validate.runtimes import runtime_named
from engines.core.errors import ShardbenchError
from engines.core.row import Row
from engines.core.runtime import AUTO

OBSERVED: Final = ("measured", "published")
COMPUTED: Final = ("predicted", "compiled")
BAND: Final = 0.1
"""Relative error within which an answer counts as near."""


def data(rows: Sequence[Row]) -> dict[str, Any]:
    """Every predicted or compiled row beside each measured or published one of its point, by their places in ``rows``.

    Of a point asked several times, the row that stands for it counts (:func:`bench.rows.standing.standing`), of a
    measured one on each machine. Rows pair as :func:`bench.rows.pairing.pair_up` says. Both rows have a valid time, or
    one has it and the other is out of memory, or both are out of memory; no other pair says anything.

    Returns:
        ``answers`` and ``references``, the rows of each pair; ``runtimes``, the software that the reference ran; and
        ``band``.
    """
    place = {id(row): number for number, row in enumerate(rows)}
    standing = _standing(rows)
    pairs = [pair for reference in OBSERVED for pair in pair_up(standing, reference) if pair.answer.source in COMPUTED]
    said = [pair for pair in pairs if _says(pair.answer) and _says(pair.reference)]
    return {
        "answers": [place[id(pair.answer)] for pair in said],
        "references": [place[id(pair.reference)] for pair in said],
        "runtimes": [_runtime(pair.reference) for pair in said],
        "band": BAND,
    }


def _standing(rows: Sequence[Row]) -> list[Row]:
    by_machine: dict[str | None, list[Row]] = {}
    for row in rows:
        by_machine.setdefault(row.host if row.source == "measured" else None, []).append(row)
    return [row for each in by_machine.values() for row in standing_rows(each).values()]


def _says(row: Row) -> bool:
    return row.status == "oom" or answered(row)


def _runtime(row: Row) -> str:
    """The runtime that the row states or its system names, else the program or engine that was timed."""
    try:
        named = runtime_named(row.runtime, row.system or "")
    except ShardbenchError:
        named = row.runtime or AUTO
    return named if named != AUTO else row.system or row.engine
