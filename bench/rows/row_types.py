"""The types of a row's fields, and the first value of a stored row that has another."""

from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any, Final, get_args, get_origin, get_type_hints

from engines.core.row import Row, Source, Status
from engines.core.text import one_line

LARGEST: Final = 2**63
"""What an integer must be below to have a place in a table of 64 bits."""


@cache
def kinds_of_fields() -> dict[str, tuple[type, ...]]:
    """The types that each field of a row allows: ``{"n": (int, NoneType), …}``."""
    return {name: tuple(_kinds(hint)) for name, hint in get_type_hints(Row).items()}


def _kinds(hint: Any) -> Iterator[type]:
    """Types of ``int | None``, ``Literal["a"]``, ``list[int]``."""
    if isinstance(hint, type) and not get_args(hint):
        yield hint
    elif get_origin(hint) in (list, dict):
        yield get_origin(hint)
    else:
        for part in get_args(hint):
            if isinstance(part, str):
                yield str
            else:
                yield from _kinds(part)


@cache
def _allowed() -> dict[str, tuple[frozenset[type], frozenset[type]]]:
    """Field → the exact types of its value, and of the items where that is a list of numbers or texts."""
    found = {}
    for name, hint in get_type_hints(Row).items():
        parts = [hint, *get_args(hint)]
        inner = [kind for part in parts if get_origin(part) is list for kind in get_args(part)]
        found[name] = (_exact(kinds_of_fields()[name]), _exact(inner))
    return found


def _exact(kinds: Any) -> frozenset[type]:
    """JSON may write a float without a fraction."""
    return frozenset({*kinds, int} if float in kinds else kinds)


def invalid_value(row: Row) -> str | None:
    """A sentence on the first value that its field does not take; None if all are valid."""
    values = _values(row)
    kinds = tuple(map(type, values))
    places = _of_values(kinds)
    if places is None:
        return next(filter(None, map(_invalid, _allowed().items(), values)), None)
    for place, (name, allowed) in places:
        fault = _invalid((name, allowed), values[place])
        if fault is not None:
            return fault
    if row.source not in get_args(Source):
        return f"source={row.source} is not known"
    if row.status not in get_args(Status):
        return f"status={row.status} is not known"
    return None


_values: Final = attrgetter(*(each.name for each in fields(Row)))


@cache
def _of_values(kinds: tuple[type, ...]) -> list[tuple[int, tuple[str, Any]]] | None:
    """Where rows of values of these types may still hold what a field does not take; None if a type is wrong.

    Most rows of a store share a few lists of types, which are looked up once.
    """
    allowed = list(_allowed().items())
    if any(kind not in exact for kind, (_, (exact, _)) in zip(kinds, allowed, strict=True)):
        return None
    return [(place, allowed[place]) for place, kind in enumerate(kinds) if kind in (list, int, str, float)]


def _invalid(field: tuple[str, Any], value: Any) -> str | None:
    """A sentence on a value that the field does not take."""
    name, (kinds, inner) = field
    kind = type(value)
    if kind not in kinds or (kind is list and not all(type(each) in inner for each in value)):
        allowed = " or ".join(each.__name__ for each in kinds_of_fields()[name] if each is not type(None))
        return f"{name}={one_line(str(value))} must be of type {allowed}"
    if kind is int and not -LARGEST <= value < LARGEST:
        return f"{name}={value} is too large"
    # JSON has no infinity, but 1e999 is read as one.
    if (kind is float and value - value != 0) or (kind is list and not all(map(_is_finite, value))):
        return f"{name} holds a number that is not finite"
    if kind is str and not value.isascii() and not _is_text(value):
        return f"{name} has a character that no text file can hold"
    return None


def _is_finite(value: Any) -> bool:
    return type(value) is not float or value - value == 0


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
