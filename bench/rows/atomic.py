"""Atomic files: written under another name, then moved into place."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engines.core.errors import InvalidRequest


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``out`` when the block ends well and is removed when it does not.

    Raises:
        InvalidRequest: the file cannot be written; the key is ``out``.
    """
    aside = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        os.replace(aside, out)
    except OSError as error:
        raise InvalidRequest("out", out, f"cannot be written ({error.strerror})", "name a file that can") from None
    finally:
        with suppress(OSError):
            aside.unlink()
