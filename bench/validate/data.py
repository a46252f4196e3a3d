"""What ``data=`` means to ``validate`` and ``calibrate``: files, globs, folders, and published tables by name."""

import glob
from collections.abc import Sequence
from pathlib import Path

from bench.importers.text import suffix_of
from bench.validate.case import Reading, merged
from bench.validate.csv_cases import read_cases
from bench.validate.stored_cases import read_stored_cases
from engines.core.errors import InvalidRequest
from engines.published.table import tables


def read_data(data: Sequence[str] | None, engine: str, counted: str | None = None) -> Reading:
    """The cases of everything that ``data`` names; None is all published tables.

    Raises:
        InvalidRequest: there is no such file, folder or table, or they hold no usable row.
    """
    return read_all(sources_of(data or []), engine, counted).checked(", ".join(data or []))


def read_all(files: Sequence[Path], engine: str, counted: str | None = None) -> Reading:
    """The cases of CSV files and stores; keys that a file does not state are the engine's own choice."""
    return merged(
        read_stored_cases(path, engine) if path.is_dir() else read_cases(path, engine, counted) for path in files
    )


def sources_of(data: Sequence[str]) -> list[Path]:
    """The CSV files and stores that ``data`` names; every published table of times if it is empty.

    A folder is a store of rows, or stands for the CSV files in it, or both. ``mine/*.csv`` is every file that matches.
    ``paper-table2`` is a published table that comes with shardbench, unless there is a file or folder of that name.

    Raises:
        InvalidRequest: there is no such file, folder or table, or a folder holds neither rows nor CSV files.
    """
    if not data:
        return list(tables().values())
    return [path for text in data for path in _sources(text)]


def _sources(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        return _in_folder(text, path)
    if path.exists():
        return [path]
    if glob.has_magic(text):
        found = [Path(each) for each in sorted(glob.glob(str(path), recursive=True))]
        if not found:
            raise InvalidRequest("data", text, "matches no file", "correct the pattern")
        return [each for match in found for each in (_in_folder(str(match), match) if match.is_dir() else [match])]
    published = tables()
    if text in published:
        return [published[text]]
    raise InvalidRequest(
        "data",
        text,
        "is no file and no folder",
        f"use a CSV file, a folder of rows or CSV files, or a published table: {', '.join(published)}",
    )


def _in_folder(text: str, folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if suffix_of(path) == ".csv" and path.is_file())
    store = [folder] if (folder / "rows").is_dir() else []
    if not files and not store:
        raise InvalidRequest("data", text, "holds no rows and no CSV files", "use a results folder or one of tables")
    return [*store, *files]
