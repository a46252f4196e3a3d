"""What a store needs of the storage that holds it, so that folders and object stores are used alike.

Every operation raises OSError, and no other error, for what the storage refuses or does not answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Touched:
    """A small file: its text, and when it was last written or touched, by the storage's clock."""

    text: str
    at_ns: int


class Storage(Protocol):
    """Files that several hosts may share. Only :meth:`create` needs to be one writer's alone; nothing is locked."""

    def is_file(self, path: Path) -> bool:
        """Whether there is something other than a folder."""
        ...

    def make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, where storage has folders."""
        ...

    def names(self, folder: Path, *, fresh: bool = False) -> list[str]:
        """Names in a folder, in no order; none where there is no folder.

        ``fresh``: of all files that are there by now, where the storage would show an older list.
        """
        ...

    def read(self, path: Path) -> bytes:
        """The content of a file."""
        ...

    def read_all(self, paths: Sequence[Path]) -> Iterator[bytes | OSError]:
        """The content of each file in order, or why it cannot be read."""
        ...

    def touched(self, path: Path) -> Touched:
        """The text of a small file and its time, both of one moment."""
        ...

    def write(self, path: Path, content: bytes) -> None:
        """Write a new file, which is whole and on disk when this returns, or not there at all. Its folder exists."""
        ...

    def try_to_write(self, path: Path, content: bytes) -> None:
        """Write such a file, and leave nothing of it; where it must have a name for a moment, that is ``path``."""
        ...

    def creates_once(self, probe: Path) -> bool:
        """Whether :meth:`create` refuses a name that is taken, as it has to; ``probe`` is made and removed again."""
        ...

    def create(self, path: Path, content: bytes) -> None:
        """Write a small new file, which one of several writers alone can. Its folder exists.

        Raises:
            FileExistsError: somebody else has.
        """
        ...

    def touch(self, path: Path, content: bytes) -> None:
        """Give a small file, whose content is known, the present time."""
        ...

    def now_ns(self, probe: Path) -> int:
        """The time by the storage's clock; where only a file has one, ``probe`` is made and removed again."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file, if there is one."""
        ...

    def remove_folder(self, folder: Path) -> None:
        """Remove a folder that is empty."""
        ...

    def move(self, path: Path, folder: Path) -> Path:
        """Move a file into a folder, which is made, by a name that nothing has there; returns its new path."""
        ...

    def free_bytes(self, folder: Path) -> int | None:
        """Bytes that this user may still write; None where the storage does not say."""
        ...
