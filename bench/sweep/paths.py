"""Paths as a user types them, with one meaning in every command."""

import os

from engines.core.errors import InvalidRequest


def path_of(key: str, text: str) -> str:
    """The path ``text``, exactly as typed; only ``~`` and ``~/…`` stand for the home folder.

    Raises:
        InvalidRequest: it is empty, or no file can have that name.
    """
    if not text:
        raise InvalidRequest(key, text, "is empty", f"write {key}=PATH; the current folder is {key}=.")
    if "\0" in text:
        raise InvalidRequest(key, text, "has a null character, which no path can have", "use another name")
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text
