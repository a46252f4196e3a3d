"""A JSON file of another harness, read key by key, so that what was never read can be listed."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engines.core.errors import InvalidRequest, ShardbenchError


class Content:
    """One mapping of a file. Keys are paths (``report.decode.latency.values``); a key that is absent or null is None.

    Every getter notes its key as read, and raises ShardbenchError, with file and key, for a value of another kind.
    """

    def __init__(self, path: Path, sha256: str, values: Mapping[str, Any], entry: int | None = None) -> None:
        self.path, self.sha256, self.values, self.entry = path, sha256, values, entry
        self._read: set[str] = set()

    def has(self, *keys: str) -> bool:
        """Whether every key is there and not null; does not count as reading it."""
        return all(self._find(key) is not None for key in keys)

    def raw(self, key: str) -> Any:
        """The value as it stands, to be kept with the row."""
        self._read.add(key)
        value = self._find(key)
        # A row holds plain JSON, which has no infinity (a request rate, say).
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    def mapping(self, key: str) -> Mapping[str, Any]:
        """The mapping at ``key``; empty where there is none. Its keys still count as unread."""
        value = self._find(key)
        return value if isinstance(value, dict) else {}

    def text(self, key: str) -> str | None:
        """A string."""
        value = self.raw(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, value, "text")
        return value

    def positive(self, key: str) -> float | None:
        """A number above 0."""
        value = self.raw(key)
        if value is None:
            return None
        if not _is_number(value) or value <= 0:
            raise self.wrong(key, value, "a number above 0")
        return float(value)

    def seconds_of_ms(self, key: str) -> float | None:
        """A time in milliseconds, in seconds."""
        value = self.positive(key)
        return None if value is None else value / 1e3

    def whole(self, key: str) -> int | None:
        """A whole number above 0."""
        value = self.positive(key)
        if value is not None and not value.is_integer():
            raise self.wrong(key, value, "a whole number")
        return None if value is None else int(value)

    def positives(self, key: str) -> list[float] | None:
        """A list of numbers above 0, at least one."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, list) or not value or not all(_is_number(each) and each > 0 for each in value):
            raise self.wrong(key, value, "a list of numbers above 0")
        return [float(each) for each in value]

    def needed(self, key: str, value: float | None) -> float:
        """``value``, which the format cannot be without.

        Raises:
            ShardbenchError: it is None.
        """
        if value is None:
            raise ShardbenchError(f"{self.path}: has no {key}, which every file of its format has")
        return value

    def unread(self) -> list[str]:
        """Paths of all values that nobody read, sorted; a list counts as one value."""
        return sorted(path for path in _leaves(self.values, "") if path not in self._read)

    def wrong(self, key: str, value: object, expected: str) -> ShardbenchError:
        """The error for a value of another kind than its format has."""
        return ShardbenchError(f"{self.path}: {key}={str(value)[:60]} is not {expected}")

    def _find(self, key: str) -> Any:
        value: Any = self.values
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return None
            value = value[part]
        return value


def read_file(path: Path) -> list[Content]:
    """The mappings of a JSON file: one, or as many as its list has.

    Raises:
        InvalidRequest: there is no such file, or it cannot be read.
        ShardbenchError: it is no JSON, or holds no mapping.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequest("data", path, f"cannot be read ({error.strerror})", "name a file of results") from None
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        values = json.loads(content)
    except UnicodeDecodeError:
        raise ShardbenchError(f"{path}: is no JSON (it is not even text)") from None
    except json.JSONDecodeError as error:
        raise ShardbenchError(f"{path}: is no JSON ({error.msg}, line {error.lineno})") from None
    if isinstance(values, dict):
        return [Content(path, sha256, values)]
    if isinstance(values, list) and values and all(isinstance(each, dict) for each in values):
        return [Content(path, sha256, each, number) for number, each in enumerate(values)]
    raise ShardbenchError(f"{path}: holds neither a mapping nor a list of mappings")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif value not in (None, {}, []):
            yield f"{prefix}{key}"
