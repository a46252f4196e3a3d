"""The files that ``data=`` names: files, folders, patterns, or a list of them."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.importers.text import suffix_of
from engines.core.errors import InvalidRequest

SUFFIXES: Final = (".json", ".jsonl", ".ndjson", ".csv", ".md", ".txt", ".sql")
"""Endings of the files that are taken from a folder, packed (``.json.gz``) or not; others are named one by one or by
a pattern."""


def files_of(data: Any) -> list[Path]:
    """Every file once, in the order given; those of a folder (with all below it) or a pattern by name.

    Raises:
        InvalidRequest: a value is no path, a pattern matches no file, or a folder has none.
    """
    given = data if isinstance(data, list) else [data]
    if not given or not all(isinstance(each, str) and each for each in given):
        raise InvalidRequest("data", data, "must be a file or a list", "use data=FILE, data=FOLDER or data=[FILE,FILE]")
    return list(dict.fromkeys(path for each in given for path in _expanded(each)))


def names_one_file(data: Any) -> bool:
    """Whether ``data=`` names a single file itself, whose problem is then that of the request."""
    given = data if isinstance(data, list) else [data]
    return len(given) == 1 and not Path(given[0]).is_dir() and (Path(given[0]).exists() or not glob.has_magic(given[0]))


def _expanded(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        found = [file for file in _below(path) if suffix_of(file) in SUFFIXES]
        problem = f"is a folder without a file that ends in {', '.join(SUFFIXES)}"
    elif path.exists() or not glob.has_magic(text):
        return [path]
    else:
        matches = sorted(Path(each) for each in glob.glob(text, recursive=True))
        found = [file for match in matches for file in (_expanded(str(match)) if match.is_dir() else [match])]
        problem = "matches no file"
    if not found:
        raise InvalidRequest("data", text, problem, "use a file, a folder or a pattern of results")
    return found


def _below(folder: Path) -> Iterator[Path]:
    """All files of a folder and those below it, sorted, without hidden ones."""
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise InvalidRequest("data", error.filename, f"cannot be read ({error.strerror})", "use a readable folder")
