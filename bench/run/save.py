"""Stores rows as their points end; a row that cannot be stored is printed instead, so that no measurement is lost."""

import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from bench.rows.store import Store, line_of
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import POINT_FIELDS, Row

KEPT: Final = (
    *POINT_FIELDS,
    *("point_id", "program_id", "code_id", "created_at", "sweep", "source", "git_sha", "git_dirty", "versions", "host"),
    *("xla_flags", "cpu_affinity", "conditions"),
)
"""Keys of a row that hold what was asked and where, not what came of it."""


class Saver:
    """Stores rows, and prints those that cannot be stored as lines of JSON.

    ``prints_rows``: whether the command prints every row on stdout anyway.
    """

    def __init__(self, store: Store, *, prints_rows: bool) -> None:
        self._store = store
        self._prints_rows = prints_rows
        self._problem = ""
        self._where = ""
        self.unsaved = 0

    def save(self, rows: Sequence[Row]) -> list[Row]:
        """Store rows; returns them, with a failed row for each that JSON cannot hold.

        A full disk may have room later, so the next rows are stored if they can be.
        """
        rows = [_storable(row) for row in rows]
        try:
            self._store.append(rows)
        except InvalidRequest as error:
            first = not self.unsaved
            self.unsaved += len(rows)
            self._problem = str(error)
            stream, self._where = _usable_stream()
            if not (self._prints_rows and self._where == "stdout"):
                for row in rows:
                    print(line_of(row), file=stream, flush=True)
            if first:
                self._say(f"{error}; rows that cannot be stored are printed on {self._where} as JSON")
        return rows

    def close(self) -> None:
        """Say on stderr how to bring in what was printed, if anything was."""
        if self.unsaved:
            self._say(
                f"{self._problem}; {self.unsaved} rows were not stored but printed on {self._where} as JSON; keep "
                f"those lines in a file and store them with shardbench results add data=FILE "
                f"results_dir={self._store.results_dir}"
            )

    def _say(self, sentence: str) -> None:
        if sys.stderr is not None:
            print(f"shardbench: {sentence}", file=sys.stderr, flush=True)


def _storable(row: Row) -> Row:
    """The row; a failed one that says why if JSON cannot hold it."""
    try:
        line_of(row)
    except ShardbenchError as error:
        kept = {name: getattr(row, name) for name in KEPT}
        return Row(**kept, status="failed", error=str(error), invalid_reason=str(error))
    return row


def _usable_stream() -> tuple[TextIO, str]:
    """Where printed rows are kept: stdout, or stderr where stdout is closed or thrown away."""
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is not None and not stream.closed and not _is_thrown_away(stream):
            return stream, name
    return sys.stdout, "stdout"


def _is_thrown_away(stream: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
    except (OSError, ValueError):  # no file at all, as where a test captures it
        return False
