"""What ``data=`` means to ``validate`` and ``calibrate``: files, folders of rows, and published tables by name."""

from collections.abc import Sequence
from pathlib import Path

from engines.core.errors import InvalidRequest
from engines.published.table import tables


def sources_of(data: Sequence[str]) -> list[Path]:
    """The files and folders that ``data`` names; every published table of times if it is empty.

    ``paper-table2`` is a published table that comes with shardbench, unless there is a file or folder of that name.

    Raises:
        InvalidRequest: there is no such file, folder or table.
    """
    if not data:
        return list(tables().values())
    return [_source(text) for text in data]


def _source(text: str) -> Path:
    path = Path(text)
    if path.exists():
        return path
    published = tables()
    if text in published:
        return published[text]
    raise InvalidRequest(
        "data",
        text,
        "is no file and no folder",
        f"use a CSV file, a folder of rows, or a published table: {', '.join(published)}",
    )
