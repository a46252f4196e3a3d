"""Takes text in brackets apart: the attributes of an instruction, and where a bracket closes."""

import re
from collections.abc import Iterator
from typing import Final

COMMENT: Final = re.compile(r"/\*.*?\*/")
_OPENING: Final = {"{": "}", "[": "]", "(": ")"}
_DEPTH: Final = {**dict.fromkeys(_OPENING, 1), **dict.fromkeys(_OPENING.values(), -1)}
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[][(){},]')
"""A quoted text, or a bracket or comma outside of all."""
_NEXT: Final = re.compile(r", (?=[\w\-]+=)")
"""What stands between two attributes, and may stand in quoted text too."""


def parse_attributes(text: str) -> dict[str, str]:
    """``key=value, key={...}`` → name and value of each, as written."""
    pieces = _NEXT.split(text)
    if not all(map(balanced, pieces)) or any(piece.count('"') % 2 for piece in pieces):
        pieces = list(split(text))
    found = {}
    for piece in filter(None, pieces):
        key, _, value = piece.partition("=")
        found[key.strip()] = value.strip()
    return found


def balanced(text: str) -> bool:
    """Whether as many brackets close as open, quoted ones counted too."""
    return (
        text.count("{") == text.count("}") and text.count("(") == text.count(")") and text.count("[") == text.count("]")
    )


def depth_of(text: str) -> int:
    """Brackets that open and do not close, those in quoted text left out."""
    return sum(_DEPTH.get(found[0], 0) for found in _TOKEN.finditer(text))


def closing(text: str, start: int) -> int:
    """Position of the bracket that closes the one at ``start``, ignoring quoted text.

    Raises:
        ValueError: it is never closed.
    """
    opened, close = text[start], _OPENING[text[start]]
    depth = 0
    for found in _TOKEN.finditer(text, start):
        character = found[0]
        if character == opened:
            depth += 1
        elif character == close:
            depth -= 1
            if not depth:
                return found.start()
    raise ValueError(f"a {opened} is never closed")


def split(text: str) -> Iterator[str]:
    """The parts between top-level commas, those outside brackets and strings."""
    depth = start = 0
    for found in _TOKEN.finditer(text):
        character = found[0]
        if character in _OPENING:
            depth += 1
        elif character in "}])":
            depth -= 1
        elif character == "," and not depth:
            if part := text[start : found.start()].strip():
                yield part
            start = found.end()
    if part := text[start:].strip():
        yield part
