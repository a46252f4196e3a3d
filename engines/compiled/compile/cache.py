"""A cache of compiled programs on disk, so that a program is compiled once.

The key is a hash of everything that determines the outcome: the StableHLO, the target, the versions of the compiler's
libraries, and its flags. Names in the source do not count, though a compiled text holds some that are read: an entry
that cannot be read may be forgotten. Running out of memory is an outcome too. Entries are gzipped JSON, written
atomically.
"""

import gzip
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from engines.core.digest import plain
from engines.core.stablehlo import nameless
from engines.host.whole_file import write_whole

FORMAT: Final = 2
"""Version of an entry's content; entries of another version are compiled again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledProgram:
    """A compiled program: its scheduled text and the memory of one device in bytes, or why it does not fit.

    ``facts`` are what else its compilation told: of a peer's, where its partitions stand and what its arrays hold.
    """

    text: str
    memory: Mapping[str, float]
    compile_s: float
    out_of_memory: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def cache_key(stablehlo: str, target: Any, versions: Mapping[str, str], flags: Mapping[str, str | bool]) -> str:
    """The key of a program, 64 hex digits. ``target`` counts by its values; names in the program do not count."""
    content = json.dumps([FORMAT, plain(target), dict(versions), dict(flags)], sort_keys=True)
    return hashlib.sha256((content + "\n" + nameless(stablehlo)).encode()).hexdigest()


class Cache:
    """A folder of entries; with None, nothing is stored."""

    def __init__(self, folder: str | None) -> None:
        self.folder = None if folder is None else Path(os.path.expanduser(folder))
        if self.folder is not None and str(self.folder).startswith("~"):
            self.folder = None  # neither HOME nor the system knows a home, as in a container under a number for a user

    def get(self, key: str) -> CompiledProgram | None:
        """The entry, or None if there is none or it cannot be read."""
        if self.folder is None:
            return None
        try:
            with gzip.open(self._path(key), "rt", encoding="utf-8") as file:
                return CompiledProgram(**json.load(file))
        except (OSError, EOFError, ValueError, TypeError):
            return None  # absent, or truncated by a full disk: compiled again

    def put(self, key: str, compiled: CompiledProgram) -> None:
        """Store an entry under its key. A folder that cannot be written costs a later compilation and no point."""
        if self.folder is None:
            return
        path = self._path(key)
        content = gzip.compress(json.dumps(asdict(compiled)).encode())
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # one that could not be read, or of an earlier format
            write_whole(path, content, path.with_name(f"{path.name}-{secrets.token_hex(4)}.part"), flush=False)

    def forget(self, key: str) -> bool:
        """Remove an entry; whether there was one, and the folder lets it be removed."""
        if self.folder is None:
            return False
        try:
            self._path(key).unlink()
        except OSError:
            return False
        return True

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.json.gz"


def default_folder() -> str:
    """``$XDG_CACHE_HOME/shardbench/compiled``, or in ``~/.cache`` if that is not set."""
    return str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "shardbench" / "compiled")
