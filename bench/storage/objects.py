"""Object stores by way of fsspec: S3 and what speaks its protocol, Google Cloud Storage.

An object is there as a whole or not at all. ``create`` is a conditional put (S3: ``If-None-Match: *``, Google:
``ifGenerationMatch=0``). Both stores list what was put as soon as the put has returned. Some that speak their protocols
ignore the condition, which :meth:`Objects.creates_once` finds.
"""

# ruff: noqa: D102

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast

from bench.storage.storage import Storage, Touched

AT_ONCE: Final = 256
"""Objects that are read at once."""
KINDS: Final[dict[type[OSError], int]] = {
    FileExistsError: errno.EEXIST,
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
}
"""The errors by which the libraries say something that is told apart here; the number of each."""
P = ParamSpec("P")
T = TypeVar("T")


class Objects(Storage):
    """See :class:`Storage`. Folders are prefixes: they need not be made, and are gone with their last object."""

    def __init__(self, place: Path) -> None:
        """``place``: any place in the object store."""
        self._fs: Any = cast(Any, place).fs

    def is_file(self, path: Path) -> bool:
        del path  # an object may have the name of a prefix
        return False

    def make_folder(self, folder: Path) -> None:
        del folder

    def names(self, folder: Path, *, fresh: bool = False) -> list[str]:
        del fresh  # both list what is there
        key = _key(folder)
        try:
            found = _asked(self._fs.ls, key, detail=False)
        except FileNotFoundError:
            self._check_bucket(key.partition("/")[0])
            return []
        return [name for name in (str(each).rstrip("/").rpartition("/")[2] for each in found) if name]

    def read(self, path: Path) -> bytes:
        return bytes(_asked(self._fs.cat_file, _key(path)))

    def read_all(self, paths: Sequence[Path]) -> Iterator[bytes | OSError]:
        for start in range(0, len(paths), AT_ONCE):
            keys = [_key(path) for path in paths[start : start + AT_ONCE]]
            found = _asked(self._fs.cat, keys, on_error="return")
            for key in keys:
                content = found.get(key, FileNotFoundError(errno.ENOENT, "No such object", key))
                yield _as_os_error(content) if isinstance(content, Exception) else bytes(content)

    def touched(self, path: Path) -> Touched:
        at = _asked(self._fs.modified, _key(path))
        return Touched(text=self.read(path).decode(errors="replace"), at_ns=round(at.timestamp() * 1e9))

    def write(self, path: Path, content: bytes) -> None:
        self.create(path, content)

    def try_to_write(self, path: Path, content: bytes) -> None:
        try:
            self.create(path, content)
        finally:
            self.remove(path)

    def creates_once(self, probe: Path) -> bool:
        try:
            self.create(probe, b"first")
            self.create(probe, b"second")
        except FileExistsError:
            return True
        finally:
            self.remove(probe)
        return False

    def create(self, path: Path, content: bytes) -> None:
        try:
            _asked(self._fs.pipe_file, _key(path), content, mode="create")
        except FileExistsError:
            # A put whose answer was lost is tried again by the library, and then finds itself.
            if self.read(path) != content:
                raise

    def touch(self, path: Path, content: bytes) -> None:
        _asked(self._fs.pipe_file, _key(path), content)

    def now_ns(self, probe: Path) -> int:
        self.touch(probe, b"")
        try:
            return self.touched(probe).at_ns
        finally:
            self.remove(probe)

    def remove(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            _asked(self._fs.rm_file, _key(path))

    def remove_folder(self, folder: Path) -> None:
        del folder

    def move(self, path: Path, folder: Path) -> Path:
        number, target, content = 0, folder / path.name, self.read(path)
        while True:
            try:
                self.create(target, content)
                break
            except FileExistsError:
                number += 1
                target = folder / f"{path.name}.{number}"
        self.remove(path)
        return target

    def free_bytes(self, folder: Path) -> int | None:
        del folder
        return None

    def _check_bucket(self, bucket: str) -> None:
        """An empty prefix is an empty store; no bucket is a mistake.

        Raises:
            FileNotFoundError: there is no such bucket.
        """
        if bucket and not _asked(self._fs.exists, bucket):
            raise FileNotFoundError(errno.ENOENT, f"there is no bucket {bucket}")


def _key(path: Path) -> str:
    """What fsspec calls an object: bucket and name, without the scheme."""
    return str(cast(Any, path).path)


def _asked(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What a call of the library returns.

    Raises:
        OSError: whatever the library, or the one below it, raised; libraries of stores have no common class of errors.
    """
    try:
        return call(*args, **kwargs)
    except Exception as error:
        raise _as_os_error(error) from None


def _as_os_error(error: Exception) -> OSError:
    """The error with a reason that says what happened, as one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    for kind, number in KINDS.items():
        if isinstance(error, kind):
            return kind(number, reason)
    return OSError(errno.EIO, reason)
