"""Digests of values: equal where the values are equal, whatever the classes and fields that hold them are called."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any


def digest(*parts: Any) -> str:
    """16 hex digits over plain values, mappings, sequences and dataclasses of them.

    A dataclass counts by its values in declaration order, so that a renamed class or field changes no digest. Numbers
    that are equal count alike (``2e12`` and ``2000000000000``), and a mapping counts alike in any order of its keys.

    Raises:
        TypeError: a value is none of these.
    """
    text = json.dumps([plain(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """The value as JSON holds it.

    Raises:
        TypeError: JSON cannot hold it, and it is not a dataclass.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return [plain(getattr(value, field.name)) for field in fields(value)]
    raise TypeError(f"{type(value).__name__} has no digest: use a plain value, mapping, sequence or dataclass")
