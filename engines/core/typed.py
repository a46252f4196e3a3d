"""Whether a value of a config has the type that a dataclass or a constructor states for it."""

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from engines.core.errors import InvalidRequest

_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "text", types.NoneType: "null"}


def is_of(value: object, annotation: Any) -> bool:
    """Whether ``value``, as YAML gives it, is of ``annotation``. A list is a tuple; a mapping makes a dataclass.

    An integer is a number, true and false are neither. Infinity and NaN are no number: no setting means them.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(is_of(value, each) for each in inner)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in inner)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            is_of(name, inner[0]) and is_of(item, inner[1]) for name, item in value.items()
        )
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, (list, tuple)) and _items_are_of(value, inner)
    if annotation in (None, types.NoneType):
        return value is None
    if annotation is bool or isinstance(value, bool):
        return annotation in (bool, Any) and (annotation is Any or isinstance(value, bool))
    if annotation is float:
        return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if annotation in (int, str):
        return isinstance(value, annotation)
    if is_dataclass(annotation):
        return isinstance(value, (Mapping, annotation))  # type: ignore[arg-type]
    return True


def described(annotation: Any) -> str:
    """What :func:`is_of` accepts, in words: ``an integer or null``."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(described(each) for each in inner)
    if origin is Literal:
        return " or ".join(str(each) for each in inner)
    if origin is not None and issubclass(origin, Mapping):
        return f"a mapping whose values are {described(inner[1])}"
    if origin is not None and issubclass(origin, Sequence):
        return f"a list whose items are {described(inner[0])}"
    if annotation is None:
        return "null"
    if is_dataclass(annotation):
        return "a mapping"
    return _NAMES.get(annotation, "a value")


def check_types(prefix: str, content: Mapping[str, Any], types: Mapping[str, Any], remedy: str) -> None:
    """Check the values of a config's keys. Keys without a type in ``types`` are left to the caller.

    Raises:
        InvalidRequest: a value is of another type; the key is ``prefix`` and its name.
    """
    for name, wanted in types.items():
        if name in content and not is_of(content[name], wanted):
            raise InvalidRequest(f"{prefix}{name}", content[name], f"must be {described(wanted)}", remedy)


def types_of(stated: Any) -> Mapping[str, Any]:
    """Field → type of a dataclass."""
    return _types_of(stated)


@cache
def _types_of(stated: Any) -> Mapping[str, Any]:
    hints = get_type_hints(stated)
    return {each.name: hints[each.name] for each in fields(stated)}


def _items_are_of(items: Sequence[object], inner: tuple[Any, ...]) -> bool:
    if len(inner) == 1 or inner[-1] is Ellipsis:
        return all(is_of(item, inner[0]) for item in items)
    return len(items) == len(inner) and all(map(is_of, items, inner))
