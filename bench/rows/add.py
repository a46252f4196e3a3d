"""Brings rows into a store from files of JSON lines, as `shardbench run` prints rows that it cannot store."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.rows.claim import superseded
from bench.rows.part_time import PartTime, moment
from bench.rows.store import Store, line_of, row_of
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import Row

REMEDY: Final = "use a file of lines that shardbench run or results export format=jsonl wrote"


@dataclass(frozen=True, slots=True)
class Added:
    """Numbers of rows: stored now, and left out because the store has them; and of lines that hold no JSON object."""

    stored: int
    known: int
    other_lines: int


def add(store: Store, files: Sequence[Path]) -> Added:
    """Store the rows of all files in one file of the store, all or none.

    A row counts from when it was made, so that one which waited in a file is not newer than what was measured since.
    One of a claim whose point was measured again meanwhile counts as known. Lines that do not begin with ``{`` are what
    else a command printed, and are left out.

    Raises:
        InvalidRequest: a file cannot be read or holds no row, or the store cannot be written.
        ShardbenchError: a line begins a JSON object and is no valid row; names the file and the line.
    """
    stored = store.load()
    known = {line_of(row) for row in stored}
    rows: dict[str, Row] = {}
    held = others = 0
    for path in files:
        found, rest = _rows_of(path)
        others += rest
        for row in found:
            line = line_of(row)
            if line in known or line in rows:
                held += 1
            else:
                rows[line] = row
    late = superseded([*stored, *rows.values()])
    held += sum(id(row) in late for row in rows.values())
    rows = {line: row for line, row in rows.items() if id(row) not in late}
    if rows:
        store.write_part(rows, _written(list(rows.values())))
    return Added(len(rows), held, others)


def _rows_of(path: Path) -> tuple[list[Row], int]:
    """The rows of a file, and its number of other lines."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequest("data", path, f"cannot be read ({reason})", REMEDY) from None
    lines = [line for line in text.split("\n") if line.strip()]
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.startswith("{"):
            continue
        try:
            rows.append(row_of(line))
        except ShardbenchError as error:
            raise InvalidRequest("data", path, f"line {number} {error}", "mend or remove that line") from None
    if not rows:
        raise InvalidRequest("data", path, "holds no rows", REMEDY)
    return rows, len(lines) - len(rows)


def _written(rows: Sequence[Row]) -> PartTime | None:
    """When a file with these rows would have been written: at the time of the newest, if that is not after now."""
    now = datetime.now(UTC)
    times = [moment(row.created_at, PartTime(now)) for row in rows]
    last = datetime.fromisoformat(max(times))
    return PartTime(last.astimezone(UTC)) if last < now else None


def to_json(results_dir: str, found: Added) -> str:
    """What was done, as one line of JSON."""
    content = {"results_dir": results_dir, "added": found.stored, "already_stored": found.known}
    return json.dumps({**content, "other_lines": found.other_lines})
