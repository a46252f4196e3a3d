"""Folders of a file system, which may be a network's (NFS): no lock of the system is used."""

# ruff: noqa: D102

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from bench.rows.atomic import sync_folder, write_durably
from bench.storage.storage import Storage, Touched
from engines.host.whole_file import write_nowhere

TEMPORARY: Final = ".tmp"
"""Suffix of a file that is being written, which readers ignore."""


class Folders(Storage):
    """See :class:`Storage`."""

    def is_file(self, path: Path) -> bool:
        return path.exists() and not path.is_dir()

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def names(self, folder: Path, *, fresh: bool = False) -> list[str]:
        try:
            if fresh:
                # A client of NFS answers from what it remembers for up to a minute, but not once it has changed the
                # folder itself: then the server says that others have, too.
                with suppress(PermissionError):  # a folder that is only read here is as old as the system says
                    os.utime(folder)
            return [path.name for path in folder.iterdir()]
        except FileNotFoundError:
            return []

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def read_all(self, paths: Sequence[Path]) -> Iterator[bytes | OSError]:
        for path in paths:
            try:
                yield path.read_bytes()
            except OSError as error:
                yield error

    def touched(self, path: Path) -> Touched:
        with path.open(encoding="utf-8", errors="replace") as file:
            # Of an open file: what NFS knows of a name alone may be a minute old.
            return Touched(text=file.read(), at_ns=os.fstat(file.fileno()).st_mtime_ns)

    def write(self, path: Path, content: bytes) -> None:
        write_durably(path, content, path.with_name(f"{path.name}{TEMPORARY}"))

    def try_to_write(self, path: Path, content: bytes) -> None:
        write_nowhere(path, content)
        sync_folder(path.parent)

    def creates_once(self, probe: Path) -> bool:
        del probe
        return True  # every file system, NFS too, keeps O_EXCL

    def create(self, path: Path, content: bytes) -> None:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def touch(self, path: Path, content: bytes) -> None:
        del content
        os.utime(path)

    def now_ns(self, probe: Path) -> int:
        os.utime(probe.parent)
        return probe.parent.stat().st_mtime_ns

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_folder(self, folder: Path) -> None:
        folder.rmdir()

    def move(self, path: Path, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        number, target = 0, folder / path.name
        while target.exists():
            number += 1
            target = folder / f"{path.name}.{number}"
        path.rename(target)
        sync_folder(folder)
        sync_folder(path.parent)
        return target

    def free_bytes(self, folder: Path) -> int | None:
        if not hasattr(os, "statvfs"):
            return None
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize if found.f_blocks else None


FOLDERS: Final = Folders()
