"""Rows on disk: one file for the rows that ended together, written whole or not at all.

``RESULTS_DIR/rows/*.jsonl`` holds one JSON row a line. A file gets its name only once it is on disk, so a crash leaves
no half a file, and each has a name of its own, so writers never meet.
"""

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import AskedWrongly, ShardbenchError
from engines.row import Row

if TYPE_CHECKING:
    import pandas as pd

TEMPORARY = ".tmp-"


class Store:
    """The rows under ``results_dir``. Folders are made by the first append; a missing store holds no rows."""

    def __init__(self, results_dir: str | Path) -> None:
        self.results_dir = Path(results_dir)
        self.rows_dir = self.results_dir / "rows"
        if self.results_dir.exists() and not self.results_dir.is_dir():
            raise AskedWrongly("results_dir", results_dir, "is a file", "name a folder")

    def append(self, rows: Sequence[Row]) -> Path:
        """Write rows as one new file; it is on disk when this returns.

        Raises:
            AskedWrongly: the folder cannot be written.
        """
        return self.write_part([json.dumps(row.to_dict(), allow_nan=False) for row in rows])

    def write_part(self, lines: Iterable[str]) -> Path:
        """Write lines (each a JSON row) as one new file.

        Raises:
            AskedWrongly: the folder cannot be written.
        """
        lines = list(lines)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        name = f"{stamp}-{os.getpid()}-{secrets.token_hex(4)}-n{len(lines)}.jsonl"
        temporary = self.rows_dir / f"{TEMPORARY}{name}"
        try:
            self.rows_dir.mkdir(parents=True, exist_ok=True)
            with temporary.open("x", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            final = temporary.with_name(name)
            temporary.rename(final)
            self._sync_folder()
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise AskedWrongly(
                "results_dir", self.results_dir, f"cannot be written ({error.strerror})", "name a folder that can"
            ) from None
        return final

    def _sync_folder(self) -> None:
        """The new name is on disk only once the folder is."""
        folder = os.open(self.rows_dir, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def parts(self) -> list[Path]:
        """The files of rows, oldest first."""
        return sorted(path for path in self.rows_dir.glob("*.jsonl") if not path.name.startswith(TEMPORARY))

    def load(self) -> list[Row]:
        """Every row, oldest first. A row that stands twice (a merge that was cut off) counts once.

        Raises:
            ShardbenchError: a file is cut off or is no file of rows; names the file, the line and the remedy.
        """
        rows: dict[str, Row] = {}
        for part in self.parts():
            for number, line, row, fault in read_part(part):
                if row is None:
                    raise ShardbenchError(
                        f"{part} line {number}: {fault}; shardbench results check repair=true "
                        f"results_dir={self.results_dir} moves it aside and keeps the rest"
                    )
                rows[line] = row
        return sorted(rows.values(), key=lambda row: row.created_at)

    def latest(self) -> dict[str, Row]:
        """The newest row of every point_id."""
        return {row.point_id: row for row in self.load()}

    def frame(self) -> "pd.DataFrame":
        """Every row as one frame, a column a field of :class:`Row`, oldest first."""
        import pandas as pd

        names = [field.name for field in fields(Row)]
        rows = self.load()
        columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in names}
        return pd.DataFrame(columns, columns=names)


def read_part(part: Path) -> Iterator[tuple[int, str, Row | None, str | None]]:
    """Every line of a file of rows: its number, text, and its row or what is wrong with it.

    A file says in its name how many rows it has, so that one cut off between two lines is known too.
    """
    number = 0
    for number, line in enumerate(part.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            yield number, line, _row(line), None
        except ShardbenchError as error:
            yield number, line, None, str(error)
    count = re.search(r"-n(\d+)$", part.stem)
    if count is not None and number < int(count[1]):
        yield number + 1, "", None, f"is missing: the file had {count[1]} rows"


def _row(line: str) -> Row:
    try:
        content = json.loads(line)
    except json.JSONDecodeError:
        raise ShardbenchError("is cut off or no JSON") from None
    if not isinstance(content, dict):
        raise ShardbenchError("is no row")
    return Row.from_dict(content)
