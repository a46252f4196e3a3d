"""Fingerprints of what is asked: equal where the questions are, whatever describes the same things beside them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Final

NOT_IDENTIFYING: Final = frozenset(
    {
        "sources",
        "source",
        "device_names",
        "xla",
        "cuda",
        "link_constants",
        "limits",
        "constants",
        "on_chip",
        "tdp_w",
        "cloud",
        "host_link_bytes_per_s",
        "nvme_bytes_per_s",
    }
)
"""Fields of a model, chip or runtime that change no answer, or that the program which answers stands for.

The rates of a host count where a point asks for them, which :meth:`engines.core.point.Point.fingerprint` adds.
"""


def fingerprint(content: Any) -> str:
    """16 hex digits over plain values, and dataclasses without the fields that are at their defaults."""
    text = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """Numbers that are equal print alike (2e12 and 2000000000000), so that they fingerprint alike."""
    if is_dataclass(value) and not isinstance(value, type):
        stated = {field.name: getattr(value, field.name) for field in fields(value)}
        return _plain(
            {name: item for name, item in stated.items() if item != _defaults(type(value)).get(name, MISSING)}
        )
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key not in NOT_IDENTIFYING}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@cache
def _defaults(kind: type) -> dict[str, Any]:
    """Field → default of a dataclass."""
    factories = {each.name: each.default_factory for each in fields(kind)}
    made = {name: factory() for name, factory in factories.items() if factory is not MISSING}
    return made | {each.name: each.default for each in fields(kind) if each.default is not MISSING}
