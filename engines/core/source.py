"""Digests of source: what tells one state of some packages from another, without running them."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset({".py", ".csv", ".json", ".yaml"})


@cache
def folder_digests(folder: Path) -> str:
    """Every source and data file of a folder with its digest, read once a process."""
    chosen = [path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES and "__pycache__" not in path.parts]
    return "".join(f"{path.relative_to(folder)}:{_digest(path)};" for path in chosen)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
