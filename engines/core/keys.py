"""What a key of a point may hold, stated once in the metadata of its field in ``engines.core.point_keys``.

The point checks its values by it. The command line, sweep recipes, CSV files, importers and the pairing of rows take
the names and kinds of their keys from it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final, Protocol

from engines.core.errors import InvalidRequest
from engines.core.extension import EXTENSION
from engines.core.needs import Needs

ABOUT: Final = "about"
"""Key of a field's metadata that holds an :class:`About`."""

LARGEST: Final = 2**31 - 1
"""Largest integer of a key: what JAX's and PyTorch's 32-bit sizes hold, and products of two are exact in 64 bits."""


class Kind(Protocol):
    """What values a key takes."""

    def check(self, name: str, value: object, phase: str) -> None:
        """Raise InvalidRequest where the key does not take the value in that phase."""
        ...

    def parse(self, name: str, text: str) -> Any:
        """The value of a cell of a CSV file; raises InvalidRequest where the text is of another kind."""
        ...

    def alternatives(self, value: object) -> list[Any]:
        """The values that a config gives: each item of a grid's list, or the one value."""
        ...


@dataclass(frozen=True, slots=True)
class Integer:
    """Integers from ``minimum``, and 0 as well in the phases ``zero_in``."""

    minimum: int
    zero_in: tuple[str, ...] = ()

    def check(self, name: str, value: object, phase: str) -> None:
        """Raise InvalidRequest for anything but an integer that is large enough."""
        minimum = 0 if phase in self.zero_in else self.minimum
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise InvalidRequest(name, value, f"must be an integer ≥ {minimum}", f"use {minimum} or more")
        if value > LARGEST:
            raise InvalidRequest(name, value, f"is larger than {LARGEST}", "use a number that 32 bits hold")

    def parse(self, name: str, text: str) -> int:
        """``64``, or ``64.0`` as spreadsheets and pandas write the integers of a column with empty cells."""
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not number.is_integer():
            raise InvalidRequest(name, text, "must be an integer", "write it like 64")
        return int(number)

    def alternatives(self, value: object) -> list[Any]:
        """A list is a grid."""
        return _items(value)


@dataclass(frozen=True, slots=True)
class Number:
    """Numbers above ``minimum``, or from it on."""

    minimum: float
    at_least: bool = False

    def check(self, name: str, value: object, phase: str) -> None:
        """Raise InvalidRequest for anything but a finite number that is large enough."""
        del phase
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < self.minimum or (value == self.minimum and not self.at_least):  # type: ignore[operator]
            law = f"must be a number {'≥' if self.at_least else '>'} {self.minimum:g}"
            raise InvalidRequest(name, value, law, f"use a number like {self.minimum + 1:g}")

    def parse(self, name: str, text: str) -> float:
        """``1.25``."""
        try:
            return float(text)
        except ValueError:
            raise InvalidRequest(name, text, "must be a number", "write it like 1.25") from None

    def alternatives(self, value: object) -> list[Any]:
        """A list is a grid."""
        return _items(value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of ``names``."""

    names: tuple[str, ...]

    def check(self, name: str, value: object, phase: str) -> None:
        """Raise InvalidRequest for another name."""
        del phase
        if value not in self.names:
            raise InvalidRequest(name, value, "is not known", f"use one of {', '.join(self.names)}")

    def parse(self, name: str, text: str) -> str:
        """The name; the point checks it."""
        del name
        return text

    def alternatives(self, value: object) -> list[Any]:
        """A list is a grid."""
        return _items(value)


@dataclass(frozen=True, slots=True)
class Named:
    """An object that a file of the config ``group`` describes; a config and a row have its name."""

    group: str

    def check(self, name: str, value: object, phase: str) -> None:
        """Raise InvalidRequest for a name: whoever makes a point reads the file."""
        del phase
        if isinstance(value, str) or not hasattr(value, "name"):
            raise InvalidRequest(name, value, f"is not what a file of conf/{self.group} describes", "give its name")

    def parse(self, name: str, text: str) -> str:
        """The name."""
        del name
        return text

    def alternatives(self, value: object) -> list[Any]:
        """A list is a grid."""
        return _items(value)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes along the axes of a mesh. The slice decides which meshes exist."""

    def check(self, name: str, value: object, phase: str) -> None:
        """Raise InvalidRequest for anything but a tuple of integers."""
        del phase
        if not isinstance(value, tuple) or not all(type(size) is int for size in value):
            raise InvalidRequest(name, value, "must be a list of integers", "use [X,Y,Z] such as [4,4,4]")

    def parse(self, name: str, text: str) -> tuple[int, ...]:
        """``[4,4,4]``."""
        return tuple(Integer(1).parse(name, size) for size in text.strip("[]").split(","))

    def alternatives(self, value: object) -> list[Any]:
        """A list of lists is a grid."""
        nested = isinstance(value, list) and value and not isinstance(value[0], int)
        return [tuple(each) if isinstance(each, list) else each for each in (_items(value) if nested else [value])]


@dataclass(frozen=True, slots=True)
class Text:
    """Texts of the ``pattern``, a regular expression; ``remedy`` says where to take one from."""

    pattern: str
    remedy: str

    def check(self, name: str, value: object, phase: str) -> None:
        """Raise InvalidRequest for anything but such a text."""
        del phase
        if not isinstance(value, str) or re.fullmatch(self.pattern, value) is None:
            raise InvalidRequest(name, value, "is no such text", self.remedy)

    def parse(self, name: str, text: str) -> str:
        """The text."""
        del name
        return text

    def alternatives(self, value: object) -> list[Any]:
        """A list is a grid."""
        return _items(value)


@dataclass(frozen=True, slots=True)
class About:
    """Description of a key: its kind, its meaning in one line, and whether the engine chooses a missing value.

    ``needs`` is what the key means nothing without. A key whose default ``is_off`` has None in a row that leaves it.
    """

    kind: Kind
    meaning: str
    engine_chooses: bool = False
    is_off: bool = False
    needs: Needs | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a point. ``default`` is MISSING where there is none."""

    name: str
    default: Any
    about: About

    def check(self, value: object, phase: str) -> None:
        """Raise InvalidRequest where the key does not take the value."""
        if value is not None or self.default is not None:
            self.about.kind.check(self.name, value, phase)

    def alternatives(self, value: object) -> list[Any]:
        """The values that a config gives: those of a grid, or one. ``auto`` is None where the key has no such name."""
        given = self.about.kind.alternatives(value)
        return [None if each == "auto" and self.default is None else each for each in given]

    def in_row(self, value: Any) -> Any:
        """The value as rows and tables have it: an object by its name, None for a default that is off."""
        if self.about.is_off and value == self.default:
            return None
        if isinstance(value, tuple):
            return list(value)
        return value.name if isinstance(self.about.kind, Named) and value is not None else value


def about(
    kind: Kind,
    meaning: str,
    *,
    engine_chooses: bool = False,
    extends: Any = None,
    is_off: bool = False,
    needs: Needs | None = None,
) -> Mapping[str, Any]:
    """The metadata of a key's field: an :class:`About`; ``extends`` is :data:`engines.core.extension.EXTENSION`'s."""
    found = {ABOUT: About(kind, meaning, engine_chooses, is_off, needs)}
    return found if extends is None else {**found, EXTENSION: extends}


def keys_of(point: type[Any]) -> Mapping[str, Key]:
    """Name → key of every field that :func:`about` describes, in order."""
    described = [field for field in fields(point) if ABOUT in field.metadata]
    return {field.name: Key(field.name, field.default, field.metadata[ABOUT]) for field in described}


def required(keys: Mapping[str, Key]) -> Sequence[str]:
    """Names of the keys that have no default."""
    return [name for name, key in keys.items() if key.default is MISSING]


def parse(keys: Mapping[str, Key], cells: Mapping[str, str]) -> dict[str, Any]:
    """The values of a line of a CSV file; an empty cell, or a column that is not there, leaves its key out."""
    return {name: key.about.kind.parse(name, cells[name]) for name, key in keys.items() if cells.get(name)}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]
