"""Checks and repairs the files of a store. A file that holds a row is never deleted before the row is stored again."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.rows.atomic import cannot
from bench.rows.claim import superseded
from bench.rows.part_time import Entry, time_of, time_of_merged
from bench.rows.store import Store, read_part
from bench.storage.folder import TEMPORARY

DEAD_WRITER_AGE_S: Final = 60.0
ANY_WRITER_AGE_S: Final = 3600.0
"""Age at which an unfinished file counts as abandoned, if its writer is dead and in any case; a write takes
milliseconds."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line that is not a valid row."""

    part: Path
    line: int
    problem: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """The content of a store: rows by source and status, broken lines, and unfinished files of dead writers."""

    parts: int
    rows: int
    by_kind: Counter[tuple[str, str]]
    faults: Sequence[Fault]
    abandoned: Sequence[Path]


def inspect(store: Store) -> Inspection:
    """Read every file and check every value of every row. Changes nothing."""
    by_kind: Counter[tuple[str, str]] = Counter()
    faults: list[Fault] = []
    parts = store.parts()
    for part in parts:
        for number, _, row, problem in read_part(part):
            if row is None:
                faults.append(Fault(part, number, problem or ""))
            else:
                by_kind[(row.source, row.status)] += 1
    return Inspection(len(parts), sum(by_kind.values()), by_kind, faults, _abandoned(store))


def repair(store: Store, inspection: Inspection) -> list[Path]:
    """Store the valid rows of each broken file again, move it to ``RESULTS_DIR/broken``, delete abandoned files.

    In that order, so that a crash in between leaves rows twice, which a store counts once, and never loses one.

    Returns:
        the new paths of the broken files.

    Raises:
        InvalidRequest: the folder cannot be written.
    """
    broken_dir = store.results_dir / "broken"
    moved = []
    with cannot("written", store.results_dir):
        for part in sorted({fault.part for fault in inspection.faults}):
            valid = [line for _, line, row, _ in read_part(part) if row is not None]
            if valid:
                store.write_part(valid, time_of(part))
            moved.append(store.storage.move(part, broken_dir))
        for path in inspection.abandoned:
            store.storage.remove(path)
    return moved


def compact(store: Store, lines_of: Callable[[Sequence[Entry]], list[str]] | None = None) -> tuple[int, int]:
    """Merge all files into one, which is on disk before the first old file is deleted.

    ``lines_of`` says what is written for all rows, oldest first; by default they are written as they are.

    Files that other writers add meanwhile are not changed. A crash in between leaves rows twice, which a store counts
    once, until the next compaction.

    Returns:
        number of files before, number of rows.

    Raises:
        ShardbenchError: a file is broken (nothing is changed), or the folder cannot be written.
    """
    entries, parts = store.entries(with_lines=True)
    if len(parts) < 2:
        return len(parts), len(entries)
    lines = [entry.line for entry in entries] if lines_of is None else lines_of(entries)
    store.write_part(lines, time_of_merged(entries, parts))
    with cannot("written", store.results_dir):
        for part in parts:
            store.storage.remove(part)
    return len(parts), len(lines)


def remove_superseded(store: Store, point_ids: Collection[str]) -> None:
    """Remove files whose only row is of one of these points, and of a claim that has a row of a later generation.

    Raises:
        InvalidRequest: the folder cannot be read or written.
    """
    found = list(store.rows_of(point_ids))
    late = superseded(row for _, row in found)
    with cannot("written", store.results_dir):
        for part, row in found:
            if id(row) in late and part.stem.endswith("-n1"):
                store.storage.remove(part)


def _abandoned(store: Store) -> list[Path]:
    """Unfinished files whose writers no longer run."""
    found = []
    now_ns = time.time_ns()
    for name in sorted(each for each in store.storage.names(store.rows_dir) if each.endswith(TEMPORARY)):
        path = store.rows_dir / name
        try:
            age_s = (now_ns - store.storage.touched(path).at_ns) / 1e9
        except FileNotFoundError:
            continue
        writer = re.match(r"\w+-(\d+)-", path.name)
        dead = writer is not None and not _alive(int(writer[1]))
        if age_s > (DEAD_WRITER_AGE_S if dead else ANY_WRITER_AGE_S):
            found.append(path)
    return found


def _alive(pid: int) -> bool:
    """Whether this machine has a process with this pid (a writer on another machine may have the same)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
