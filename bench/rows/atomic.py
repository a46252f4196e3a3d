"""Atomic file writes: to a temporary file that is then renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engines.core.errors import InvalidRequest


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """A temporary path to write to, renamed to ``out`` if the block succeeds and removed if it fails.

    Raises:
        InvalidRequest: the file cannot be written; the key is ``out``.
    """
    temporary = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, out)
    except OSError as error:
        raise InvalidRequest("out", out, f"cannot be written ({error.strerror})", "use a writable file") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
