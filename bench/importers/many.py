"""Reads many files as rows, each on its own: what is wrong with one keeps no row of another from the store."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.importers.choices import Choices
from bench.importers.content import Content, NoRowSays
from bench.importers.files import read_file
from bench.importers.to_rows import rows_of
from engines.core.errors import ShardbenchError
from engines.core.row import Row


@dataclass(slots=True)
class Imported:
    """What became of the files: their rows, new ones and all, and the sentence for each that was refused.

    ``rows`` maps a file to its rows in the order of the files; ``new`` are those that the store does not have, each
    once; ``known`` are the rows that it has, or that another file of the command brought. ``left_out`` says of results
    beside others of their file why no row can say them.
    """

    rows: dict[Path, list[Row]] = field(default_factory=dict)
    new: list[Row] = field(default_factory=list)
    known: int = 0
    refused: dict[Path, ShardbenchError] = field(default_factory=dict)
    left_out: list[ShardbenchError] = field(default_factory=list)

    @property
    def files(self) -> int:
        """How many files were read."""
        return len(self.rows) + len(self.refused)

    def summary(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        formats = Counter(rows[0].details["format"] for rows in self.rows.values())
        return {
            "files": self.files,
            "formats": dict(sorted(formats.items())),
            "rows_added": len(self.new),
            "rows_already_stored": self.known,
            "rows_not_valid": sum(not row.valid for row in self.new),
            "files_refused": len(self.refused),
            "results_left_out": [text_of(error) for error in self.left_out],
            "refused": [{"file": text_of(path), "error": text_of(error)} for path, error in self.refused.items()],
        }


def read_files(
    paths: Sequence[Path], settings: Mapping[str, Any], stored: set[str], advance: Callable[[], None]
) -> Imported:
    """The rows of every file; all rows of a file count, or none, but for results that no row can say.

    ``stored`` are the ``point_id`` of rows that the store has. ``advance`` is called after each file.
    """
    found, choices, seen = Imported(), Choices(settings), set(stored)
    for path in paths:
        try:
            rows, left_out = _rows(read_file(path), settings, choices)
            for row in rows:
                _check_storable(path, row)
        except ShardbenchError as error:
            found.refused[path] = error
        else:
            fresh = {row.point_id: row for row in rows if row.point_id not in seen}
            found.rows[path] = rows
            found.left_out += left_out
            found.new += fresh.values()
            found.known += len(rows) - len(fresh)
            seen |= fresh.keys()
        advance()
    return found


def _rows(
    results: Sequence[Content], settings: Mapping[str, Any], choices: Choices
) -> tuple[list[Row], list[ShardbenchError]]:
    """The rows of a file's results, and why some have none; raises the error of a file without a row."""
    rows: list[Row] = []
    left_out: list[ShardbenchError] = []
    for content in results:
        try:
            rows += rows_of(content, settings, choices)
        except NoRowSays as error:
            left_out.append(error)
    if not rows and left_out:
        raise left_out[0]
    return rows, left_out


def text_of(value: object) -> str:
    """A value as text that every stream takes: names of files may hold bytes that are no text."""
    return str(value).encode("utf-8", "replace").decode()


def _check_storable(path: Path, row: Row) -> None:
    try:
        json.dumps(row.to_dict(), allow_nan=False)
    except ValueError:
        raise ShardbenchError(f"{path}: makes figures beyond any number; import an unmodified file") from None
