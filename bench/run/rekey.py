"""Gives rows of schema version 1, whose keys contained the code, keys of the current schema if they are still valid.

A predicted, published or compiled row is evaluated again and stays if the times are equal. A measured row does not
record its program, so the caller must supply proof that the same program would run now.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench.measure.timing import TimingConfig
from bench.rows.atomic import cannot
from bench.rows.part_time import time_of_merged
from bench.rows.store import Store, line_of
from bench.run.again import by_config, other_versions, requested_point
from bench.run.child import evaluate
from bench.run.identify import program_ids
from bench.run.keys import code_id, code_id_of, point_id
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask
from bench.run.progress import Output
from bench.run.worker import answer_all
from engines.core.engine import Estimator
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import SCHEMA_VERSION, Row

ASIDE: Final = "before-rekey"
"""The folder next to ``rows`` that the old files are moved to."""
TIMES: Final = ("latency_s", "ttft_s", "step_time_s")
TOLERANCE: Final = 1e-12
"""Relative difference allowed in predicted and published times; compiled times must be equal."""


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """Rows now stored, how many of them got new keys, dropped rows with the reason, and the old files' new paths."""

    rows: int
    rekeyed: int
    dropped: Sequence[tuple[Row, str]]
    moved: Sequence[Path]


def rekey(store: Store, proven: Mapping[str, bool]) -> Rekeyed:
    """Write the store's rows to one new file, then move the old files to ``RESULTS_DIR/before-rekey``.

    In that order, so that a crash in between loses nothing: a second run writes the same rows, which count once.
    ``proven``: old ``point_id`` of a measured row → whether the same program would run now.

    Raises:
        ShardbenchError: a file is broken (nothing is changed), or the folder cannot be written.
    """
    entries, parts = store.entries()
    rows = [entry.row for entry in entries]
    old = [row for row in rows if row.schema_version < SCHEMA_VERSION and row.engine != "imported"]
    if not old:
        return Rekeyed(len(rows), 0, [], [])
    groups, refused = by_config(old)
    found: dict[int, Row | str] = {**refused}
    for config, group in groups:
        found |= _rekeyed(config, group, proven)
    outcomes = [found.get(id(row), row) for row in rows]
    valid = [row for row in outcomes if isinstance(row, Row)]
    if valid:
        store.write_part(map(line_of, valid), time_of_merged(entries, parts))
    moved = _move_aside(store, parts)
    dropped = [(row, reason) for row, reason in zip(rows, outcomes, strict=True) if isinstance(reason, str)]
    return Rekeyed(len(valid), len(old) - len(dropped), dropped, moved)


def read_proven(path: Path) -> dict[str, bool]:
    """Read a JSON file ``{"old point_id": true}``.

    Raises:
        InvalidRequest: the file does not exist or has other content.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise InvalidRequest("proven", path, "cannot be read", 'use a JSON file such as {"point_id": true}') from None
    if not isinstance(content, dict) or not all(isinstance(value, bool) for value in content.values()):
        raise InvalidRequest(
            "proven", path, "must map every point_id to true or false", 'use a JSON file such as {"point_id": true}'
        )
    return content


def _rekeyed(config: Mapping[str, Any], rows: Sequence[Row], proven: Mapping[str, bool]) -> dict[int, Row | str]:
    """id() of a row → the row with its new keys, or the reason why it is dropped."""
    engine = make_engine(config)
    code, found, pairs = code_id(engine), dict[int, Row | str](), list[tuple[Row, PointTask]]()
    for row in rows:
        try:
            point = requested_point(row)
        except ShardbenchError as error:
            found[id(row)] = f"cannot be evaluated again: {error}"
            continue
        reason = _not_proven(row, proven, config)
        if reason is not None:
            found[id(row)] = reason
            continue
        key = point_id(engine, point)
        own = code_id_of(engine, code, point)
        pairs.append((row, PointTask(point=point, point_id=key, source=row.source, sweep=row.sweep, code_id=own)))
    tasks = [task for _, task in pairs]
    if not tasks:
        return found
    if engine.source == "measured":
        programs = program_ids(config, [task.point for task in tasks])
        for (row, task), program in zip(pairs, programs, strict=True):
            keyed = replace(row, schema_version=SCHEMA_VERSION, point_id=task.point_id, program_id=program)
            rejected = "the engine cannot run it on this machine, so its program is not known"
            found[id(row)] = rejected if program is None else replace(keyed, code_id=code)
        return found
    if config.get("isolated"):
        answers = _in_children(config, tasks, engine.environment([task.point for task in tasks]))
    else:
        assert isinstance(engine, Estimator)
        answers = answer_all(engine, tasks)
    for (row, _), answer in zip(pairs, answers, strict=True):
        found[id(row)] = _difference(row, answer, engine.libraries) or replace(
            row,
            schema_version=SCHEMA_VERSION,
            point_id=answer.point_id,
            program_id=answer.program_id,
            code_id=answer.code_id,
        )
    return found


def _in_children(config: Mapping[str, Any], tasks: Sequence[PointTask], environment: Mapping[str, str]) -> list[Row]:
    """One row per task, with a progress bar on stderr if that is a terminal."""
    answers = []
    with Output("none", len(tasks)) as output:
        for row in evaluate(config, tasks, TimingConfig(), environment):
            output.show(row, new=True)
            answers.append(row)
    return answers


def _not_proven(row: Row, proven: Mapping[str, bool], config: Mapping[str, Any]) -> str | None:
    """Why a measured row cannot be kept, without computing its program; None if it may be, or is not measured."""
    if row.source != "measured":
        return None
    if not proven.get(row.point_id):
        return "measured, without proof that the same program would run now; use proven=FILE"
    return other_versions(row, make_engine(config).libraries)


def _difference(row: Row, answer: Row, libraries: Sequence[str]) -> str | None:
    """The first difference between a stored row and a new one; None if there is none."""
    if row.status != answer.status:
        return f"status={row.status}, and now {answer.status} ({answer.error or 'with a time'})"
    tolerance = 0.0 if row.source == "compiled" else TOLERANCE
    for key in TIMES:
        before, now = getattr(row, key), getattr(answer, key)
        if before == now:
            continue
        if before is None or now is None or abs(now - before) > tolerance * abs(before):
            return f"{key}={before}, and now {now}"
    return other_versions(row, libraries)


def _move_aside(store: Store, parts: Sequence[Path]) -> list[Path]:
    with cannot("written", store.results_dir):
        return [store.storage.move(part, store.results_dir / ASIDE) for part in parts]
