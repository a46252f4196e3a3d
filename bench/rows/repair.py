"""Checks and repairs of a store's files. Nothing that holds a row is ever deleted."""

import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from bench.rows.store import TEMPORARY, Store, kinds_of_fields, read_part, sync_folder
from engines.core.errors import InvalidRequest
from engines.core.row import Row, Source, Status

SETTLED_S: Final = 60.0
ABANDONED_S: Final = 3600.0
"""A dead writer's file is a leaving after the first, any writer's after the second: it writes for milliseconds."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line that is not a row."""

    part: Path
    line: int
    problem: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """The content of a store: rows by source and status, faults, and unfinished files of dead writers."""

    parts: int
    rows: int
    by_kind: Counter[tuple[str, str]]
    faults: Sequence[Fault]
    leavings: Sequence[Path]


def inspect(store: Store) -> Inspection:
    """Read every file and check every value of every row; changes nothing."""
    by_kind: Counter[tuple[str, str]] = Counter()
    faults: list[Fault] = []
    parts = store.parts()
    for part in parts:
        for number, _, row, problem in _checked(part):
            if row is None:
                faults.append(Fault(part, number, problem or ""))
            else:
                by_kind[(row.source, row.status)] += 1
    return Inspection(len(parts), sum(by_kind.values()), by_kind, faults, _leavings(store))


def repair(store: Store, inspection: Inspection) -> list[Path]:
    """Write the good rows of each broken file anew, move the file to ``RESULTS_DIR/broken``, remove leavings.

    In that order, so that a crash in between leaves rows twice, which a store counts once, and never loses one.

    Returns:
        where the broken files are now.

    Raises:
        InvalidRequest: the folder cannot be written.
    """
    aside = store.results_dir / "broken"
    moved = []
    try:
        for part in sorted({fault.part for fault in inspection.faults}):
            good = [line for _, line, row, _ in _checked(part) if row is not None]
            if good:
                store.write_part(good)
            aside.mkdir(exist_ok=True)
            target = _free(aside / part.name)
            part.rename(target)
            sync_folder(aside)
            moved.append(target)
        for leaving in inspection.leavings:
            leaving.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(store, error) from None
    return moved


def compact(store: Store) -> tuple[int, int]:
    """Merge all files into one. The merged file is on disk before the first of the others goes.

    Files that other writers add meanwhile stay as they are. A crash in between leaves rows twice, which a store counts
    once, until the next compaction.

    Returns:
        files before, rows.

    Raises:
        ShardbenchError: a file is broken (nothing is changed), or the folder cannot be written.
    """
    store.load()
    parts = store.parts()
    lines: dict[str, None] = {}
    for part in parts:
        with suppress(FileNotFoundError):  # another compaction has it, so its rows stand in another file
            lines.update((line, None) for _, line, _, _ in read_part(part))
    if len(parts) < 2:
        return len(parts), len(lines)
    store.write_part(lines)
    try:
        for part in parts:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(store, error) from None
    return len(parts), len(lines)


def _checked(part: Path) -> list[tuple[int, str, Row | None, str | None]]:
    """The lines of a file; rows with values of a wrong type count as broken."""
    found: list[tuple[int, str, Row | None, str | None]] = []
    for number, line, row, problem in read_part(part):
        wrong = None if row is None else _wrong_value(row)
        found.append((number, line, None, wrong) if wrong else (number, line, row, problem))
    return found


def _wrong_value(row: Row) -> str | None:
    """The first value that does not have its field's type, in words."""
    for name, kinds in KINDS.items():
        value = getattr(row, name)
        # bool is an int to Python and a JSON number without a fraction may stand for a float.
        fits = bool in kinds if isinstance(value, bool) else isinstance(value, kinds)
        if not fits and not (float in kinds and type(value) is int):
            types = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
            return f"{name}={value} is not of type {types}"
    if row.source not in get_args(Source):
        return f"source={row.source} is not known"
    if row.status not in get_args(Status):
        return f"status={row.status} is not known"
    return None


def _leavings(store: Store) -> list[Path]:
    """Unfinished files whose writers are gone."""
    found = []
    for path in sorted(store.rows_dir.glob(f"*{TEMPORARY}")):
        try:
            age_s = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue
        writer = re.match(r"\w+-(\d+)-", path.name)
        dead = writer is not None and not _alive(int(writer[1]))
        if age_s > (SETTLED_S if dead else ABANDONED_S):
            found.append(path)
    return found


def _alive(pid: int) -> bool:
    """Whether a process of this machine has that number; one of another machine is left to its age."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _free(path: Path) -> Path:
    """The path, with a number where it exists already."""
    number, free = 0, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def _cannot_write(store: Store, error: OSError) -> InvalidRequest:
    return InvalidRequest(
        "results_dir", store.results_dir, f"cannot be changed ({error.strerror})", "name a folder that can be written"
    )


KINDS: Final[dict[str, Any]] = kinds_of_fields()
