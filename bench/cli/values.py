"""The kinds of values that a key of the command line takes. Nothing is guessed: a value is what its key says."""

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from bench.sweep.paths import path_of, store_of
from engines.core.errors import InvalidRequest

LARGEST: Final = 2**53
"""Largest integer of the command line: no larger one is exact in floating point, where all are computed with."""
INTEGER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
QUOTES: Final = ("'", '"')
PARTNER: Final = {"(": ")", "[": "]", "{": "}"}
EXAMPLE: Final = "write a list as [a,b], and an item with a comma or a bracket in quotes: ['a,b',c]"


class Kind(Protocol):
    """What values a key takes."""

    @property
    def is_text(self) -> bool:
        """Whether ``null`` is a text as any other; where it isn't, it is the default of a key without a value."""
        ...

    def parse(self, key: str, text: str) -> Any:
        """The value of a text that is not empty; raises InvalidRequest where the key does not take it."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """Text exactly as typed."""

    is_text: ClassVar[bool] = True

    def parse(self, key: str, text: str) -> str:
        """The text."""
        del key
        return text


@dataclass(frozen=True, slots=True)
class FilePath:
    """A file or folder, exactly as typed; see :func:`path_of`."""

    is_text: ClassVar[bool] = True

    def parse(self, key: str, text: str) -> str:
        """The path, as text."""
        return path_of(key, text)


@dataclass(frozen=True, slots=True)
class StorePath:
    """A store of rows: a folder, or the URL of a prefix of an object store; see :func:`store_of`."""

    is_text: ClassVar[bool] = True

    def parse(self, key: str, text: str) -> str:
        """The place, as text."""
        return store_of(key, text)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of ``names``."""

    names: tuple[str, ...]
    is_text: ClassVar[bool] = False

    def parse(self, key: str, text: str) -> str:
        """The name."""
        if text not in self.names:
            raise InvalidRequest(key, text, "is not known", f"use one of {', '.join(self.names)}")
        return text


@dataclass(frozen=True, slots=True)
class Boolean:
    """``true`` or ``false``."""

    is_text: ClassVar[bool] = False

    def parse(self, key: str, text: str) -> bool:
        """The truth value."""
        if text.lower() not in ("true", "false"):
            raise InvalidRequest(key, text, "must be true or false", f"use {key}=true or {key}=false")
        return text.lower() == "true"


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer ≥ ``minimum``."""

    minimum: int
    is_text: ClassVar[bool] = False

    def parse(self, key: str, text: str) -> int:
        """The integer."""
        digits = text.lstrip("+-").lstrip("0") if INTEGER.fullmatch(text) else None
        value = int(digits or "0") if digits is not None and len(digits) <= len(str(LARGEST)) else LARGEST + 1
        value = -value if text.startswith("-") else value
        if digits is None or value < self.minimum:
            raise InvalidRequest(key, text, f"must be an integer ≥ {self.minimum}", f"use {self.minimum} or more")
        if value > LARGEST:
            raise InvalidRequest(key, text, "is too large", f"use {LARGEST} or less")
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number within the bounds that are given."""

    minimum: float | None = None
    above: float | None = None
    below: float | None = None
    is_text: ClassVar[bool] = False

    def parse(self, key: str, text: str) -> float:
        """The number."""
        value = float(text) if NUMBER.fullmatch(text) else math.nan
        limits = (("≥", self.minimum, operator.ge), (">", self.above, operator.gt), ("<", self.below, operator.lt))
        bounds = [(f"{sign} {limit:g}", holds(value, limit)) for sign, limit, holds in limits if limit is not None]
        if not math.isfinite(value) or not all(good for _, good in bounds):
            needed = " ".join(["must be a number", " and ".join(text for text, _ in bounds)]).rstrip()
            raise InvalidRequest(key, text, needed, "write it like 0.05, 3 or 1e9")
        return value


@dataclass(frozen=True, slots=True)
class ListOf:
    """One value, or a list of at least ``least``: ``[a,b]``; or one of ``words`` in place of a list."""

    kind: Kind
    words: tuple[str, ...] = ()
    least: int = 1

    @property
    def is_text(self) -> bool:
        """As its items."""
        return self.kind.is_text

    def parse(self, key: str, text: str) -> Any:
        """The list of the values, or the word."""
        if text in self.words:
            return text
        texts = items(key, text)
        if len(texts) < self.least:
            raise InvalidRequest(key, text, "is an empty list", "use at least one value")
        return [self.kind.parse(key, each) for each in texts]


def items(key: str, text: str) -> list[str]:
    """The items of ``[a,b]``; any other text is one item.

    Blanks around an item don't count. An item with a comma, a bracket or a quote at its beginning is quoted, and in it
    the quote itself is doubled: ``['a,b','it''s']``.

    Raises:
        InvalidRequest: an item is empty, or brackets or quotes are not closed.
    """
    if not (text.startswith("[") and text.endswith("]") and len(text) > 1):
        return [text]
    inside, found, at = text[1:-1], [], 0
    if not inside.strip():
        return []
    while True:
        at = len(inside) - len(inside[at:].lstrip())
        item, at = (_quoted if inside[at : at + 1] in QUOTES else _plain)(key, text, inside, at)
        found.append(item)
        if at == len(inside):
            return found
        at += 1  # the comma


def _quoted(key: str, text: str, inside: str, start: int) -> tuple[str, int]:
    """The item whose quote stands at ``start``, and where the comma after it stands, or the end."""
    quote = inside[start]
    at = start + 1
    while inside[at : at + 1] != quote or inside[at + 1 : at + 2] == quote:
        at += 2 if inside[at : at + 1] == quote else 1
        if at >= len(inside):
            raise InvalidRequest(key, text, f"has a {quote} without its partner", EXAMPLE)
    item = inside[start + 1 : at].replace(quote * 2, quote)
    after = len(inside) - len(inside[at + 1 :].lstrip())
    if inside[after : after + 1] not in ("", ","):
        raise InvalidRequest(key, text, f"has no comma after {quote}{item}{quote}", EXAMPLE)
    return item, after


def _plain(key: str, text: str, inside: str, start: int) -> tuple[str, int]:
    """The same of an item without quotes: its brackets, and the commas in them, belong to it."""
    closing: list[str] = []
    at = start
    while at < len(inside) and (closing or inside[at] != ","):
        letter = inside[at]
        if letter in PARTNER:
            closing.append(PARTNER[letter])
        elif letter in PARTNER.values() and (not closing or closing.pop() != letter):
            raise InvalidRequest(key, text, f"has a {letter} without its partner", EXAMPLE)
        at += 1
    if closing:
        raise InvalidRequest(key, text, f"lacks a {closing[-1]}", EXAMPLE)
    item = inside[start:at].rstrip()
    if not item:
        raise InvalidRequest(key, text, "has an empty item", EXAMPLE)
    return item, at


def listed(texts: Sequence[object]) -> str:
    """The list as a user types it; :func:`items` reads it back."""
    return f"[{','.join(_item(str(text)) for text in texts)}]"


def _item(text: str) -> str:
    try:
        plain = items("", f"[{text}]") == [text]
    except InvalidRequest:
        plain = False
    return text if plain else "'" + text.replace("'", "''") + "'"
