"""Paths as a user types them, with one meaning in every command."""

import os
from typing import Final

from bench.storage.place import scheme_of
from engines.core.errors import InvalidRequest

LONGEST_NAME: Final = 255
LONGEST_PATH: Final = 4095
"""Bytes that a name, and a whole path, may have on common file systems."""


def store_of(key: str, text: str) -> str:
    """The place of a store as typed: a path as :func:`path_of` reads it, or the URL of a prefix of an object store.

    Raises:
        InvalidRequest: it is empty, or no folder can have that name.
    """
    return text if scheme_of(text) is not None else path_of(key, text)


def path_of(key: str, text: str) -> str:
    """The path ``text``, exactly as typed; only ``~`` and ``~/…`` stand for the home folder.

    Raises:
        InvalidRequest: it is empty, a URL, or no file can have that name.
    """
    if scheme_of(text) is not None:
        raise InvalidRequest(key, text, "is a URL", "use a file or folder; only stores of rows may be URLs")
    if not text:
        raise InvalidRequest(key, text, "is empty", f"write {key}=PATH; the current folder is {key}=.")
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise InvalidRequest(key, text, "has a character that no path can have", "use another name")
    if len(encoded) > LONGEST_PATH or any(len(name) > LONGEST_NAME for name in encoded.split(os.fsencode(os.sep))):
        raise InvalidRequest(key, text, "is too long for a path", f"use names of at most {LONGEST_NAME} bytes")
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text
