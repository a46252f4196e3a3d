"""Stores rows as their points end; a row that cannot be stored is printed instead, so that no measurement is lost."""

import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from bench.rows.counted import counted
from bench.rows.store import Store, line_of
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import POINT_FIELDS, Row

KEPT: Final = (
    *POINT_FIELDS,
    *("point_id", "program_id", "code_id", "created_at", "sweep", "source", "git_sha", "git_dirty", "versions", "host"),
    *("xla_flags", "cpu_affinity", "conditions", "claim"),
)
"""Keys of a row that hold what was asked and where, not what came of it."""


class Saver:
    """Stores rows, and prints those that cannot be stored as lines of JSON.

    They go to stdout, and to stderr where ``stdout_taken`` says that stdout holds every row anyway.
    """

    def __init__(self, store: Store, *, stdout_taken: bool) -> None:
        self._store = store
        self._streams = ("stderr", "stdout") if stdout_taken else ("stdout", "stderr")
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
            self._where = self._print(rows)
            if first:
                self._say(f"{error}; rows that cannot be stored are printed on {self._where} as JSON")
        return rows

    def _print(self, rows: Sequence[Row]) -> str:
        """Print rows on the first stream that is not closed, full or thrown away; returns its name."""
        text = "".join(f"{line_of(row)}\n" for row in rows)
        for name in self._streams:
            stream: TextIO | None = getattr(sys, name)
            if stream is None or stream.closed or _is_thrown_away(stream):
                continue
            try:
                stream.write(text)
                stream.flush()
            except OSError:
                continue
            return name
        raise ShardbenchError(f"{self._problem}; and neither stdout nor stderr takes {counted(len(rows), 'row')}")

    def close(self) -> None:
        """Say on stderr how to bring in what was printed, if anything was."""
        if self.unsaved:
            self._say(
                f"{self._problem}; {counted(self.unsaved, 'row')} not stored but printed on {self._where} as JSON; "
                f"keep those lines in a file and store them with shardbench results add data=FILE "
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


def _is_thrown_away(stream: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
    except (OSError, ValueError):  # no file at all, as where a test captures it
        return False
