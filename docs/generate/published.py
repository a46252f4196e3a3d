"""The page of published measurements: what the tables' README says, and what each table holds."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from metrics import escaped

from engines.published.table import PublishedRow, rows_in, tables

README = Path(__file__).parents[2] / "engines/published/data/README.md"


def page() -> str:
    """``reference/published.md``."""
    return "\n".join(
        [
            README.read_text(encoding="utf-8").rstrip(),
            "",
            "## What they hold",
            "",
            "Ask for a table by its name: `shardbench validate data=NAME`, or `from: NAME` in a sweep of yours.",
            "",
            "| table | runtime | chips | models | rows | out of memory | what is uncertain of most rows |",
            "|---|---|---|---|---|---|---|",
            *_lines(),
            "",
        ]
    )


def _lines() -> Iterator[str]:
    for name, path in tables().items():
        rows = rows_in(path.name)
        doubts = Counter(row.doubt for row in rows if row.doubt).most_common(1)
        cells = [
            f"`{name}`",
            *(_several(rows, key) for key in ("runtime", "hw", "model")),
            str(len(rows)),
            str(sum(row.status == "oom" for row in rows)),
            doubts[0][0] if doubts else "",
        ]
        yield f"| {' | '.join(map(escaped, cells))} |"


def _several(rows: Sequence[PublishedRow], key: str) -> str:
    return ", ".join(dict.fromkeys(row.stated[key] for row in rows))
