"""CompiledProgram programs on disk, so that the same question is compiled once.

The key is a hash of what decides the outcome: the StableHLO, the topology, the versions of compiler and reader, and the
compiler's flags. What ran out of memory is an outcome too. Entries are gzipped JSON, written whole or not at all.
"""

import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from engines.core.digest import plain
from engines.core.stablehlo import nameless

FORMAT: Final = 2
"""Raised when the content of an entry changes; older entries are then compiled anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledProgram:
    """What the compiler made of one program: the scheduled text and one device's bytes, or why it does not fit."""

    text: str
    memory: Mapping[str, float]
    compile_s: float
    out_of_memory: str | None = None


def cache_key(stablehlo: str, target: Any, versions: Mapping[str, str], flags: Mapping[str, str | bool]) -> str:
    """64 hex digits. ``target`` is a dataclass, and counts by its values; names in the program do not count."""
    content = json.dumps([FORMAT, plain(target), dict(versions), dict(flags)], sort_keys=True)
    return hashlib.sha256((content + "\n" + nameless(stablehlo)).encode()).hexdigest()


class Cache:
    """A folder of entries; None keeps nothing."""

    def __init__(self, folder: str | None) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()

    def get(self, key: str) -> CompiledProgram | None:
        """The entry, or None where there is none that can be read."""
        if self.folder is None:
            return None
        try:
            with gzip.open(self._path(key), "rt", encoding="utf-8") as file:
                return CompiledProgram(**json.load(file))
        except (OSError, EOFError, ValueError, TypeError):
            return None  # absent, or cut off by a full disk: compiled anew

    def put(self, key: str, compiled: CompiledProgram) -> None:
        """Store an entry under its key."""
        if self.folder is None:
            return
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False, suffix=".part") as file:
            file.write(gzip.compress(json.dumps(asdict(compiled)).encode()))
        os.replace(file.name, path)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.json.gz"


def default_folder() -> str:
    """``$XDG_CACHE_HOME/shardbench/compiled``, in ``~/.cache`` where that is not set."""
    return str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "shardbench" / "compiled")
