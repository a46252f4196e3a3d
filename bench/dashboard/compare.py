"""The data of the page Compare: which rows may stand side by side, for each key that they may differ in."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.compare.nights.history import Answer, History, histories
from bench.compare.nights.read import Night
from bench.compare.nights.summary import machine_text
from bench.dashboard.judged import Intervals, JudgedNights
from bench.dashboard.read import Stored
from bench.rows.methods import METHODS
from bench.rows.pairing import OPEN
from bench.rows.table import plain_text
from engines.core.point import Point
from engines.core.row import POINT_FIELDS, Row
from engines.core.runtime import AUTO

OF_ENGINE: Final = ("engine", "runtime")
"""Keys of the point that go with the engine, beside evidence and source."""
OF_LOAD: Final = ("request_rate_per_s", "num_requests")
LAYOUT: Final = (
    *(name for name in OPEN if name not in (*OF_ENGINE, *OF_LOAD, *METHODS, "first_token")),
    "partitioner",
)
DEFAULTS: Final = {name: Point.schema()[name].default for name in LAYOUT}
OTHER_MACHINES: Final = frozenset({"hw", "num_chips", "machine"})
"""Keys whose values cannot be on one machine, or are machines."""
TITLES: Final = {"layout": "layout (all keys of it)", "hw": "chip (hw)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An answer that may be compared: ``rest`` must be equal on both sides, ``value`` is what differs."""

    history: History
    answer: Answer
    rest: tuple[Any, ...]
    value: str


def data(judged: JudgedNights, stored: Stored) -> dict[str, Any]:
    """``keys`` in the order of a choice, each with the entries that have another one to stand beside.

    Returns:
        of each key ``name``, ``title``, ``same_machine`` (whether two measured sides must be of one machine), the
        ``values`` to choose from, ``alone`` (the rows of each value that nothing may stand beside) and, as parallel
        lists: ``rows`` (places in the table of rows), ``rest`` (numbers: entries with the same one differ in this key
        alone), ``value`` (places in ``values``), ``times``, ``low``, ``high`` (as in the history's data) and
        ``machines`` (null for what was not measured).
    """
    found = [each.history for each in judged.points]
    nights = [
        Entry(history=each, answer=answer, rest=(place,), value=answer.day)
        for place, each in enumerate(found)
        for answer in each.answers
    ]
    made = {"night": nights, "store": _of_stores(stored), **_of_points(found)}
    keys = [_key(name, entries, judged) for name, entries in made.items()]
    return {"days": judged.days, "keys": [key for key in keys if key is not None]}


def _of_stores(stored: Stored) -> list[Entry]:
    """The answers of every store, where there are several."""
    by_store: dict[str, list[Row]] = defaultdict(list)
    for row, store in zip(stored.rows, stored.stores, strict=True):
        by_store[store].append(row)
    if len(by_store) < 2 or len(by_store) == len(stored.nights):
        return []
    stores = [Night(day=name or ".", store=Path(name), rows=rows) for name, rows in sorted(by_store.items())]
    return [
        Entry(history=each, answer=answer, rest=(place,), value=answer.day)
        for place, each in enumerate(histories(stores))
        for answer in each.answers
    ]


def _of_points(found: Sequence[History]) -> dict[str, list[Entry]]:
    """The newest answer of every history, for each key of a point that rows differ in, and for some together."""
    evidence = [(row.source, row.system, row.reference) for row in (each.last.row for each in found)]
    columns = {name: [_text(asked(each.last.row, name)) for each in found] for name in POINT_FIELDS}
    columns = {name: values for name, values in columns.items() if len(set(values)) > 1}  # the others are equal anyway
    names = list(columns)
    points = list(zip(*columns.values(), strict=True)) or [()] * len(found)

    def entries(without: Iterable[str], values: Iterable[str], *, any_evidence: bool = False) -> list[Entry]:
        left_out = set(without)
        places = [place for place, name in enumerate(names) if name not in left_out]
        return [
            Entry(
                history=history,
                answer=history.last,
                rest=(*(point[place] for place in places), *(() if any_evidence else of)),
                value=value,
            )
            for history, point, of, value in zip(found, points, evidence, values, strict=True)
        ]

    made = {
        "engine": entries(OF_ENGINE, map(_engine, found), any_evidence=True),
        "layout": entries(LAYOUT, map(_layout, found)),
        "machine": entries((), map(_machine, found)),
    }
    return made | {name: entries((name,), values) for name, values in columns.items() if name != "engine"}


def asked(row: Row, name: str) -> Any:
    """The row's value of a key of its point, as it was asked: auto where it was left to the engine."""
    return AUTO if name in row.chosen else getattr(row, name)


def _engine(history: History) -> str:
    row = history.last.row
    name = f"{row.engine}: {row.system}" if row.system else row.engine
    return name if row.runtime in (None, AUTO) else f"{name} ({row.runtime})"


def _layout(history: History) -> str:
    stated = {name: asked(history.last.row, name) for name in LAYOUT}
    words = [f"{name}={_text(value)}" for name, value in stated.items() if value not in (None, AUTO, DEFAULTS[name])]
    return " ".join(words) or AUTO


def _machine(history: History) -> str:
    return "not measured" if history.machine is None else machine_text(history.machine)


def _text(value: Any) -> str:
    return AUTO if value is None else plain_text(value)


def _key(name: str, entries: Sequence[Entry], judged: JudgedNights) -> dict[str, Any] | None:
    """A key with the entries that have a partner; None where none has."""
    values: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for entry in entries:
        values[entry.rest].add(entry.value)
    kept = [entry for entry in entries if len(values[entry.rest]) > 1]
    if not kept:
        return None
    listed = sorted({entry.value for entry in kept})
    places = {value: place for place, value in enumerate(listed)}
    rests = {rest: place for place, rest in enumerate(dict.fromkeys(entry.rest for entry in kept))}
    intervals = Intervals(_distinct(entry.history for entry in kept))
    ends = [intervals.of(entry.history, entry.answer) for entry in kept]
    alone: list[list[int]] = [[] for _ in listed]
    for entry in entries:
        if len(values[entry.rest]) == 1 and entry.value in places:
            alone[places[entry.value]].append(judged.place(entry.answer.row))
    return {
        "name": name,
        "title": TITLES.get(name, name),
        "same_machine": name not in OTHER_MACHINES,
        "values": listed,
        "alone": alone,
        "rows": [judged.place(entry.answer.row) for entry in kept],
        "rest": [rests[entry.rest] for entry in kept],
        "value": [places[entry.value] for entry in kept],
        "times": [entry.answer.time_s for entry in kept],
        "low": [None if end is None else end[0] for end in ends],
        "high": [None if end is None else end[1] for end in ends],
        "machines": [None if entry.history.machine is None else machine_text(entry.history.machine) for entry in kept],
    }


def _distinct(found: Iterable[History]) -> list[History]:
    return list({id(each): each for each in found}.values())
