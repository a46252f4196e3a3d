"""Atomic file writes: to a temporary file that is then renamed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engines.core.errors import InvalidRequest, ShardbenchError
from engines.host.scratch import ScratchFolder
from engines.host.whole_file import write_whole

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NOT_A_FOLDER: Final = frozenset({errno.EEXIST, errno.ENOTDIR})
NO_FOLDER_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP})
"""What a file system answers that has nothing to flush for a folder."""


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """A temporary path to write to, renamed to ``out`` if the block succeeds and removed if it fails or is killed.

    A pipe or a device (``/dev/null``) stays what it is, and gets the content.

    Raises:
        InvalidRequest: the file cannot be written; the key is ``out``.
    """
    try:
        is_pipe = out.exists() and not out.is_file() and not out.is_dir()
        with ScratchFolder() if is_pipe else beside(out) as folder:
            # A short name: that of ``out`` may be as long as a name may be.
            temporary = folder / f"new{out.suffix}"
            yield temporary
            if is_pipe:
                out.write_bytes(temporary.read_bytes())
            else:
                os.replace(temporary, out)
    except OSError as error:
        raise InvalidRequest("out", out, f"cannot be written ({error.strerror})", "use a writable file") from None


def beside(out: Path, prefix: str = ".new-") -> ScratchFolder:
    """A temporary folder in that of ``out``, so that what is written there can be moved to ``out`` at once.

    Raises:
        InvalidRequest: it cannot be made; the key is ``out``.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return ScratchFolder(out.parent, prefix)
    except (OSError, ShardbenchError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can be made in its folder"
        raise InvalidRequest("out", out, f"cannot be written ({reason})", "use a folder that can be written") from None


@contextmanager
def cannot(be_done: str, results_dir: object) -> Iterator[None]:
    """Turn what the system says of a store's folder into one sentence; ``be_done`` is ``read`` or ``written``.

    Raises:
        InvalidRequest: reading or writing in the block failed; the key is ``results_dir``.
    """
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path that no system can have, such as one with a NUL
        raise _sentence(results_dir, be_done, error) from None


def _sentence(results_dir: object, be_done: str, error: OSError | ValueError) -> InvalidRequest:
    reason, remedy = str(error), f"use a {'readable' if be_done == 'read' else 'writable'} folder"
    if "://" in str(results_dir):
        remedy = "check the bucket, the credentials and the endpoint, or use a folder"
    if isinstance(error, OSError):
        reason = error.strerror or reason
        if error.errno in NOT_A_FOLDER:
            reason = f"{error.filename} is not a folder"
        if error.errno in FULL:
            remedy = "free some space there, or use a folder elsewhere"
    return InvalidRequest("results_dir", results_dir, f"cannot be {be_done} ({reason})", remedy)


def write_durably(path: Path, content: bytes, temporary: Path) -> None:
    """Write a new file that is whole and on disk when this returns, or not there at all; by way of ``temporary``.

    Raises:
        OSError: it cannot be written. If only flushing the folder failed, the file is there all the same.
    """
    write_whole(path, content, temporary, flush=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk: a new name of a file is durable only once its folder is.

    Raises:
        OSError: it cannot be flushed, on a file system that flushes folders.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
