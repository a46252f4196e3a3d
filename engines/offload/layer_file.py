"""A file of layers: each layer's arrays side by side in one extent that direct I/O can read."""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from engines.core.errors import ShardbenchError

ALIGN: Final = 4096
"""Direct I/O reads whole blocks: an extent begins and ends at a multiple of this many bytes."""
INDEX: Final = "layers.json"
DATA: Final = "layers.bin"


@dataclass(frozen=True, slots=True)
class Extent:
    """One layer: where it begins in the file, the bytes that are read, and those of them that are its arrays."""

    offset: int
    read_bytes: int
    payload_bytes: int


def padded_bytes(payload_bytes: int) -> int:
    """The bytes that are read of an extent of ``payload_bytes``: the next multiple of :data:`ALIGN`."""
    return -(-payload_bytes // ALIGN) * ALIGN


@dataclass(frozen=True, slots=True)
class LayerFile:
    """The file ``folder``/layers.bin and its index. ``identity`` says what it holds, so that it is not read as another.

    The arrays of a layer follow one another without gaps, in the order in which they were written, as raw bytes.
    """

    folder: Path
    identity: str
    extents: tuple[Extent, ...]

    @property
    def path(self) -> Path:
        """The file of the layers' bytes."""
        return self.folder / DATA

    @classmethod
    def found(cls, folder: Path, identity: str) -> Self | None:
        """The file in ``folder``, if it is whole and holds ``identity``; else None."""
        try:
            index = json.loads((folder / INDEX).read_text())
            extents = tuple(Extent(**each) for each in index["extents"])
            whole = (folder / DATA).stat().st_size == sum(each.read_bytes for each in extents)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cls(folder, identity, extents) if whole and index.get("identity") == identity else None


class LayerWriter:
    """Writes a :class:`LayerFile`, a layer at a time. The index is written last: without it a file is not found."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Begin the file, in place of one that is there.

        Raises:
            ShardbenchError: the folder cannot be written.
        """
        self.folder, self.identity, self.extents = folder, identity, list[Extent]()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / INDEX).unlink(missing_ok=True)
            self.file = (folder / DATA).open("wb")
        except OSError as error:
            raise _unwritable(folder, error) from None

    def add(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Write the next layer.

        Raises:
            ShardbenchError: the disk is full.
        """
        offset = self.file.tell()
        payload = sum(each.nbytes for each in arrays)
        extent = Extent(offset, padded_bytes(payload), payload)
        try:
            for each in arrays:
                np.ascontiguousarray(each).tofile(self.file)
            self.file.write(bytes(extent.read_bytes - payload))
            # Written pages are given back at once: neither this process nor a later read is to find them in memory.
            self.file.flush()
            os.fsync(self.file.fileno())
            os.posix_fadvise(self.file.fileno(), offset, extent.read_bytes, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise self._given_up(error) from None
        self.extents.append(extent)

    def close(self) -> LayerFile:
        """The whole file.

        Raises:
            ShardbenchError: the disk is full.
        """
        made = LayerFile(self.folder, self.identity, tuple(self.extents))
        index = {"identity": self.identity, "extents": [asdict(each) for each in self.extents]}
        try:
            self.file.close()
            (self.folder / INDEX).write_text(json.dumps(index))
        except OSError as error:
            raise self._given_up(error) from None
        return made

    def _given_up(self, error: OSError) -> ShardbenchError:
        """The error to raise, with the room on the disk free again."""
        for name in (INDEX, DATA):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what is not written yet has nowhere to go
            self.file.close()
        return _unwritable(self.folder, error)


def _unwritable(folder: Path, error: OSError) -> ShardbenchError:
    why = error.strerror or error
    return ShardbenchError(
        f"engine.offload_dir={folder}: the layers cannot be written there ({why}); use another folder"
    )
