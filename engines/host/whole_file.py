"""New files that are there as a whole or not at all, with nothing left behind if the writer is killed meanwhile."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

NO_UNNAMED_FILES: Final = (errno.EISDIR, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT, errno.EXDEV, errno.EPERM)
"""What systems answer that have no files without a name, or cannot give one a name."""


def write_whole(path: Path, content: bytes, temporary: Path, *, flush: bool) -> None:
    """Write a new file: without a name until it is whole, or under the name ``temporary`` where that cannot be done.

    Args:
        path: the file, which does not exist, in a folder that does.
        content: all that it holds.
        temporary: a name in the same folder that nobody else uses.
        flush: whether the content has to be on disk before the file has its name.

    Raises:
        OSError: it cannot be written.
    """
    if _write_unnamed(path, content, flush=flush):
        return
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_nowhere(temporary: Path, content: bytes) -> None:
    """Try whether such a file can be written and flushed, and leave nothing.

    Args:
        temporary: its name for a moment, where the system has no files without one.
        content: what it would hold.

    Raises:
        OSError: it cannot be written.
    """
    if _write_unnamed(temporary, content, flush=True, named=False):
        return
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    finally:
        temporary.unlink(missing_ok=True)


def _write_unnamed(path: Path, content: bytes, *, flush: bool, named: bool = True) -> bool:
    """Whether the system could; a file that nobody has given a name is gone with its writer."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        with os.fdopen(os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            if flush:
                os.fsync(file.fileno())
            if not named:
                return True
            # A folder's descriptor, though the path is absolute, makes Python follow the link to the file itself.
            os.link(f"/proc/self/fd/{file.fileno()}", path, src_dir_fd=file.fileno(), follow_symlinks=True)
    except OSError as error:
        if error.errno not in NO_UNNAMED_FILES:
            raise
        return False
    return True
