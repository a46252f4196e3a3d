"""Reading a CSV of published or measured times, in the columns of ``engines/published/data``."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.run.make_row import PointTask, estimated
from bench.sweep.catalog import with_draft
from bench.validate.case import Case, Reading, Unused
from bench.validate.csv_text import CsvLine, read_csv
from bench.validate.described import model_and_chip
from bench.validate.runtimes import runtime_named
from bench.validate.throughput import RATES, check_agrees, rate_of
from engines.core.engine import Estimate
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.keys import parse, required
from engines.core.point import Point
from engines.published.systems import first_token_of
from engines.published.table import CHIP_AND_MODEL, columns

MAX_LATENCY_S: Final = 1e5
"""A longer time is rejected, because it is probably in milliseconds or microseconds."""
TIME: Final = "latency_s"


def read_cases(path: Path, engine: str, counted: str | None = None) -> Reading:
    """Every line of ``path``. An empty cell means the engine's own choice.

    A file has the columns of the published tables, in any order, or one of :data:`RATES` instead of ``latency_s``. Any
    other key of a point may be a column too; further columns are kept with the case. Without a column ``runtime``,
    ``system`` says which it was. If ``first_token`` is absent or
    empty, ``system`` decides (:func:`engines.published.systems.first_token_of`).

    Args:
        path: the file. One that cannot be read, or lacks a column, is unused as a whole.
        engine: the engine that the points are for.
        counted: the tokens that throughputs count, where a line does not say it.
    """
    try:
        text = read_csv(path)
        _check_header(text.header)
    except ShardbenchError as error:
        return Reading(unused=[Unused(path.name, None, str(error))])
    if not text.lines:
        return Reading(unused=[Unused(path.name, None, "has a header but no rows; add rows")])
    cases: list[Case] = []
    unused: list[Unused] = []
    case_of = partial(_case, path.name, engine=engine, counted=counted)
    for line in text.lines:
        try:
            cases.append(case_of(line))
        except ShardbenchError as error:
            unused.append(Unused(path.name, line.number, str(error)))
    return Reading(cases, unused)


def _check_header(names: Sequence[str]) -> None:
    if "max_context_len" in names and TIME not in names:
        raise ShardbenchError(f"column {TIME} is missing; use a table of times, not of memory limits")
    missing = [name for name in columns() if name not in names and not (name == TIME and set(RATES) & set(names))]
    if missing:
        instead = f" (or {' or '.join(RATES)})" if missing[0] == TIME else ""
        raise ShardbenchError(
            f"column {missing[0]}{instead} is missing; the columns are {','.join(columns())} "
            "(an empty cell means the engine's own choice)"
        )


def _case(file: str, line: CsvLine, *, engine: str, counted: str | None) -> Case:
    if line.problem is not None:
        raise ShardbenchError(line.problem)
    cells = line.cells
    if cells.get("valid", "").lower() == "false":  # a row that shardbench exported
        reason = cells.get("invalid_reason") or cells.get("error") or "without a reason"
        raise ShardbenchError(f"valid={cells['valid']}: {reason}")
    if cells["status"] not in ("ok", "oom"):
        raise InvalidRequest("status", cells["status"], "is not known", "use ok or oom")
    oom = cells["status"] == "oom"
    point = _point(cells, engine)
    latency_s, derived = _time(cells, point, counted, oom)
    if latency_s is not None:
        _check_plausible(point, latency_s)
    used = {*columns(), *Point.schema(), *RATES, "tokens", "runtime"}
    return Case(
        file=file,
        line=line.number,
        system=cells["system"],
        reference=cells["source"],
        point=point,
        latency_s=latency_s,
        oom=oom,
        runtime=runtime_named(cells.get("runtime"), cells["system"]),
        derived=derived,
        extra={name: cell for name, cell in cells.items() if name not in used and cell},
    )


def _point(cells: Mapping[str, str], engine: str) -> Point:
    for name in (*CHIP_AND_MODEL, *required(Point.schema())):
        if not cells[name] and (name, cells["phase"]) != ("output_len", "prefill"):
            raise InvalidRequest(name, "", "is empty", "only layouts, degrees and dtypes may be empty")
    keys: dict[str, Any] = {"output_len": 0, "first_token": first_token_of(cells["system"])}
    keys |= parse(Point.schema(), cells)
    model, chip = model_and_chip(cells["model"], cells["hw"])
    point = Point(model=model, chip=chip, engine=engine, **with_draft(keys))
    point.check()
    mfu = _number("mfu", cells["mfu"]) if cells["mfu"] else 0.0
    if not 0 <= mfu <= 1:
        raise InvalidRequest("mfu", cells["mfu"], "must be a fraction from 0 to 1", "use 0.43 for 43%")
    return point


def _time(cells: Mapping[str, str], point: Point, counted: str | None, oom: bool) -> tuple[float | None, str | None]:
    """The seconds of a line, None if it was out of memory, and the rule if they follow from a throughput."""
    stated = cells.get(TIME, "")
    rate = rate_of(cells, point.phase, counted)
    if oom:
        if stated or rate is not None:
            key = TIME if stated or rate is None else rate.column
            raise InvalidRequest(key, cells[key], "must be empty if status=oom", "remove it, or use status=ok")
        return None, None
    if stated:
        seconds = _in_range(TIME, stated, _number(TIME, stated))
        if rate is not None:
            check_agrees(rate, point, seconds)
        return seconds, None
    if rate is None:
        raise InvalidRequest(TIME, "", "is empty although status=ok", "use seconds, or status=oom")
    seconds, rule = rate.latency_s(point)
    return _in_range(rate.column, cells[rate.column], seconds), rule


def _check_plausible(point: Point, latency_s: float) -> None:
    """Check that no chip would have been faster than its peak, as every row is checked."""
    task = PointTask(point=point, point_id="", source="published", sweep=None)
    row = estimated(task, Estimate(latency_s=latency_s))
    if not row.valid:
        raise ShardbenchError(f"not plausible: {row.invalid_reason}")


def _in_range(key: str, text: str, seconds: float) -> float:
    if seconds <= 0:
        raise InvalidRequest(key, text, "must be a number > 0", "use seconds")
    if seconds > MAX_LATENCY_S:
        raise InvalidRequest(key, text, f"is over {MAX_LATENCY_S:.0e} s, probably in another unit", "use seconds")
    return seconds


def _number(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidRequest(key, text, "must be a number", "use a number such as 0.0285")
    return number
