"""The store of rows: every append writes one new file atomically.

``RESULTS_DIR/rows/*.jsonl`` holds one JSON row per line, in a folder or an object store (:mod:`bench.storage`). A file
gets its final name only once it is on disk, so a crash leaves no partial file; every file has a unique name, so writers
need no lock; and files are never modified.
"""

import gc
import hashlib
import json
import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.rows.at_read import as_stored
from bench.rows.atomic import cannot
from bench.rows.claim import superseded
from bench.rows.counted import counted
from bench.rows.part_time import Entry, PartTime, moment, newest, next_time, time_of
from bench.rows.row_types import invalid_value, kinds_of_fields
from bench.rows.standing import standing_rows
from bench.rows.upgrade import upgrade
from bench.storage.choose import storage_of
from bench.storage.place import place_of
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import Row

if TYPE_CHECKING:
    import pandas as pd

NAMES: Final = tuple(each.name for each in fields(Row))
SUFFIX: Final = ".jsonl"
READ_ATTEMPTS: Final = 10
"""Most attempts to read a store while another process compacts it."""


class Store:
    """The rows under ``results_dir``. The first append creates the folders; a missing store has no rows.

    Raises:
        InvalidRequest: ``results_dir`` is a file, or a URL that no store can have.
    """

    def __init__(self, results_dir: str | Path) -> None:
        self.results_dir = place_of(results_dir)
        self.rows_dir = self.results_dir / "rows"
        self.storage = storage_of(self.results_dir)
        self._newest: PartTime | None = None
        self._looked = False
        self._seen: set[str] = set()
        with cannot("read", self.results_dir):
            if self.storage.is_file(self.results_dir):
                raise InvalidRequest("results_dir", results_dir, "is a file", "use a folder")

    def append(self, rows: Sequence[Row]) -> Path:
        """Write rows to one new file, which is on disk when this returns; returns its path.

        Raises:
            InvalidRequest: the folder cannot be written.
            ShardbenchError: JSON cannot hold a value of a row; names the key. Nothing is written.
        """
        return self.write_part([line_of(row) for row in rows])

    def write_part(self, lines: Iterable[str], at: PartTime | None = None) -> Path:
        """Write lines (each a JSON row) to one new file, whose name ends in their number; returns its path.

        ``at`` is the time of a file that this one takes the place of; by default it is written now.

        Raises:
            InvalidRequest: the folder cannot be written.
        """
        lines = list(lines)
        with cannot("written", self.results_dir):
            self.storage.make_folder(self.rows_dir)
            when = self._time() if at is None else at
            name = f"{when.stamp}-{os.getpid()}-{secrets.token_hex(4)}-n{len(lines)}.jsonl"
            self.storage.write(self.rows_dir / name, "".join(f"{line}\n" for line in lines).encode())
            self._seen.add(name)
        return self.rows_dir / name

    def _time(self) -> PartTime:
        """The time of a file that is written now, after all that this process has found or written here."""
        if not self._looked:
            self._newest, self._looked = newest(self.parts()), True
        self._newest = next_time(self._newest, datetime.now(UTC))
        return self._newest

    def parts(self) -> list[Path]:
        """The files of rows, oldest first.

        Raises:
            InvalidRequest: there is such a folder, and it cannot be read.
        """
        with cannot("read", self.results_dir):
            names = self.storage.names(self.rows_dir)
        return [self.rows_dir / name for name in sorted(names) if name.endswith(SUFFIX)]

    def load(self) -> list[Row]:
        """Every row, oldest first. A row that is stored twice (by an interrupted compaction) counts once.

        Of the rows of one claim the last counts: :mod:`bench.rows.claim`.

        Raises:
            ShardbenchError: a file is truncated or has an invalid row; names the file, the line and the remedy.
        """
        return [entry.row for entry in self.entries()[0]]

    def entries(self, *, with_lines: bool = False) -> tuple[list[Entry], list[Path]]:
        """Every row as :meth:`load` gives them, with their times, and the files that hold them.

        Raises:
            ShardbenchError: as :meth:`load`.
        """
        for _ in range(READ_ATTEMPTS):
            parts = self.parts()
            try:
                found = self._read(parts, with_lines)
                self.saw(parts)
                return found, parts
            except FileNotFoundError:
                continue  # a compaction merged it into another file after parts() listed it
        raise ShardbenchError(f"{self.rows_dir}: its files changed during all {READ_ATTEMPTS} reads; try again")

    def saw(self, parts: Iterable[Path]) -> None:
        """Take files as read, as :meth:`rows_of_others` asks."""
        self._seen = {part.name for part in parts}

    def rows_of_others(self) -> list[Row]:
        """Rows that others have stored since this store was last asked for rows, in no order; without broken lines."""
        found: list[Row] = []
        with cannot("read", self.results_dir):
            names = self.storage.names(self.rows_dir, fresh=True)
            new = [self.rows_dir / name for name in names if name not in self._seen and name.endswith(SUFFIX)]
            for part, content in zip(new, self.storage.read_all(new), strict=True):
                with suppress(FileNotFoundError):  # merged into another file meanwhile, which comes too
                    found += [row for _, _, row, _ in read_part(part, content) if row is not None]
                    self._seen.add(part.name)
        return found

    def rows_of(self, point_ids: Collection[str]) -> Iterator[tuple[Path, Row]]:
        """Every row of these points with its file, superseded or not; without broken lines."""
        parts = self.parts()
        for part, content in zip(parts, self.storage.read_all(parts), strict=True):
            with suppress(FileNotFoundError):
                for _, _, row, _ in read_part(part, content):
                    if row is not None and row.point_id in point_ids:
                        yield part, row

    def _read(self, parts: Sequence[Path], with_lines: bool) -> list[Entry]:
        found: dict[bytes, Entry] = {}
        with no_garbage_collection():
            for part, content in zip(parts, self.storage.read_all(parts), strict=True):
                time = time_of(part)
                for number, line, row, fault in read_part(part, content):
                    if row is None:
                        raise ShardbenchError(
                            f"{part} line {number}: {fault}; shardbench results check repair=true "
                            f"results_dir={self.results_dir} sets it aside"
                        )
                    key = hashlib.blake2b(line.encode(), digest_size=16).digest()
                    if key not in found:
                        found[key] = Entry(moment(row.created_at, time), row, line if with_lines else "")
            late = superseded(entry.row for entry in found.values())
            entries = (entry for entry in found.values() if id(entry.row) not in late)
            return sorted(entries, key=lambda entry: entry.moment)

    def latest(self) -> dict[str, Row]:
        """point_id → the row that stands for it: :func:`bench.rows.standing.standing`."""
        return standing_rows(self.load())

    def frame(self) -> "pd.DataFrame":
        """Every row as one frame with a column per field of :class:`Row`, oldest first.

        ``created_at`` is a time in UTC; the other dtypes are Int64, float64, boolean and string, with a missing value
        for None; lists and mappings are objects.

        Raises:
            ShardbenchError: as :meth:`load`.
        """
        return frame_of(self.load())


def frame_of(rows: Sequence[Row]) -> "pd.DataFrame":
    """Rows as one frame; see :meth:`Store.frame`."""
    import pandas as pd

    dtypes: dict[type, Any] = {int: "Int64", float: "float64", bool: "boolean", str: "string"}
    columns: dict[str, Any] = {}
    for name, kinds in kinds_of_fields().items():
        values = [getattr(row, name) for row in rows]
        kind = next((each for each in (str, bool, float, int) if each in kinds), None)
        columns[name] = pd.Series(values, dtype=object if kind is None else dtypes[kind])
    times = pd.to_datetime(columns["created_at"], utc=True, errors="coerce", format="ISO8601")
    columns["created_at"] = times.astype("datetime64[us, UTC]")
    return pd.DataFrame(columns, columns=list(NAMES))


def read_part(part: Path, content: bytes | OSError | None = None) -> Iterator[tuple[int, str, Row | None, str | None]]:
    """Yield every line of a file of rows: its number, its text, and its row or the problem with it.

    The file's name has its number of rows, so that truncation between two lines is detected too. ``content``: what the
    storage has read of it, if it has.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if content is None:
        content = next(storage_of(part).read_all([part]))
    if isinstance(content, FileNotFoundError):
        raise content
    if isinstance(content, OSError):
        yield 1, "", None, f"cannot be read ({content.strerror})"
        return
    text = content.decode(errors="replace")
    if "\r" in text:  # as a file that an editor has saved
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Not splitlines(), which also splits at characters that a JSON string may contain.
    lines = text.removesuffix("\n").split("\n") if text else []
    for number, line in enumerate(lines, start=1):
        try:
            yield number, line, row_of(line), None
        except ShardbenchError as error:
            yield number, line, None, str(error)
    count = re.search(r"-n(\d+)$", part.stem)
    if count is not None and len(lines) < int(count[1]):
        yield len(lines) + 1, "", None, f"is missing: the file had {counted(int(count[1]), 'row')}"


def line_of(row: Row) -> str:
    """The row as a line of JSON, without what a row has only when it is read (:mod:`bench.rows.at_read`).

    Raises:
        ShardbenchError: JSON cannot hold a value; names the key.
    """
    row = as_stored(row)
    content = {name: getattr(row, name) for name in NAMES}
    try:
        return json.dumps(content, allow_nan=False)
    except (ValueError, TypeError):
        for key, value in content.items():
            try:
                json.dumps(value, allow_nan=False)
            except (ValueError, TypeError):
                raise ShardbenchError(
                    f"{key}={value}: cannot be stored as JSON; engine={row.engine} must return finite plain values "
                    f"(model={row.model} phase={row.phase} batch_size={row.batch_size})"
                ) from None
        raise


def row_of(line: str) -> Row:
    """The row of a line of JSON.

    Raises:
        ShardbenchError: it is none.
    """
    try:
        content = json.loads(line, parse_constant=_not_finite)
    except json.JSONDecodeError:
        raise ShardbenchError("is truncated or not JSON") from None
    if not isinstance(content, dict):
        raise ShardbenchError("is not a row")
    row = Row.from_dict(content)
    fault = invalid_value(row)
    if fault is not None:
        raise ShardbenchError(fault)
    return upgrade(row)


def _not_finite(word: str) -> float:
    raise ShardbenchError(f"holds {word}, which is not JSON")


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, which would scan a hundred thousand new rows repeatedly and free none of them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
