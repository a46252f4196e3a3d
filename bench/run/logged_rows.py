"""Which rows of a store were logged to Weights & Biases: a text file beside the rows, which themselves never change."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from engines.core.row import Row

NAME: Final = "wandb-logged.txt"


class LoggedRows:
    """The file ``RESULTS_DIR/wandb-logged.txt``: a line for every row that was logged. Many processes may add lines."""

    def __init__(self, results_dir: Path) -> None:
        self.path = results_dir / NAME

    def add(self, rows: Sequence[Row]) -> None:
        """Remember rows as logged.

        Raises:
            OSError: the file cannot be written.
        """
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{_line(row)}\n" for row in rows))

    def without(self, rows: Sequence[Row]) -> list[Row]:
        """Those of the rows that were not logged, in order.

        Raises:
            OSError: the file exists and cannot be read.
        """
        try:
            logged = set(self.path.read_text(encoding="utf-8", errors="replace").splitlines())
        except FileNotFoundError:
            logged = set()
        return [row for row in rows if _line(row) not in logged]


def _line(row: Row) -> str:
    return f"{row.point_id} {row.program_id or '-'} {row.created_at}"
