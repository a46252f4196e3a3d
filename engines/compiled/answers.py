"""Answers that were found before: the same point, asked of the same code, compiler and device, needs no JAX.

Compiled programs are cached by what they are, which only lowering tells; an answer by what it follows from: the point
with its model and chip, the engine's options and limits, the source of all that makes, reads and times programs, and
the versions and flags of the compiler. Where any of them differs, programs are lowered again, and found in their own
cache.
"""

import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from engines.core.digest import digest
from engines.core.engine import Estimate, Facts
from engines.core.point import Point
from engines.core.source import folder_digests
from engines.core.versions import compiler_flags, versions_of
from engines.host.whole_file import write_whole

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = "answers"


class Answers:
    """Answers in a folder of the cache; with None, nothing is kept. ``packages`` are those whose source counts."""

    def __init__(self, folder: Path | None, packages: Sequence[str]) -> None:
        self.folder, self.packages = None if folder is None else folder / FOLDER, packages

    def key(self, point: Point, libraries: Sequence[str], *more: Any) -> str:
        """The key of a point's answer, by whatever it follows from; ``more`` are the engine's settings."""
        source = [folder_digests(ROOT / name) for name in ("core", "host", *self.packages)]
        return digest(point, more, source, versions_of(libraries), compiler_flags())

    def get(self, key: str) -> Estimate | None:
        """The answer, or None if there is none or it cannot be read."""
        if self.folder is None:
            return None
        try:
            content = json.loads(self._path(key).read_text(encoding="utf-8"))
            return Estimate(**{**content, "facts": Facts(**content["facts"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None  # absent, or truncated by a full disk: found again

    def put(self, key: str, answer: Estimate) -> None:
        """Keep an answer. A folder that cannot be written costs a later search and no point."""
        if self.folder is None:
            return
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            path, content = self._path(key), json.dumps(asdict(answer)).encode()
            path.unlink(missing_ok=True)  # one that could not be read
            write_whole(path, content, path.with_name(f"{path.name}-{secrets.token_hex(4)}.part"), flush=False)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.json"
