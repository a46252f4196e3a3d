"""A JSON file of another harness, read key by key, so that unread keys can be listed."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engines.core.errors import InvalidRequest, ShardbenchError


class Content:
    """One mapping of a file. Keys are paths (``report.decode.latency.values``); an absent or null key is None.

    Every getter marks its key as read, and raises ShardbenchError with file and key if the value has another type.
    """

    def __init__(self, path: Path, sha256: str, values: Mapping[str, Any], entry: int | None = None) -> None:
        self.path, self.sha256, self.values, self.entry = path, sha256, values, entry
        self._read: set[str] = set()

    def has(self, *keys: str) -> bool:
        """Whether every key is present and not null; does not mark it as read."""
        return all(self._find(key) is not None for key in keys)

    def raw(self, key: str) -> Any:
        """The unchanged value, for the row's details."""
        self._read.add(key)
        value = self._find(key)
        # JSON, in which rows are stored, has no infinity (a request rate, for example).
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    def mapping(self, key: str) -> Mapping[str, Any]:
        """The mapping at ``key``; empty if there is none. Does not mark its keys as read."""
        value = self._find(key)
        return value if isinstance(value, dict) else {}

    def text(self, key: str) -> str | None:
        """A string."""
        value = self.raw(key)
        if value is not None and not isinstance(value, str):
            raise self.invalid(key, value, "a string")
        return value

    def positive(self, key: str) -> float | None:
        """A number > 0."""
        value = self.raw(key)
        if value is None:
            return None
        if not _is_number(value) or value <= 0:
            raise self.invalid(key, value, "a number > 0")
        return float(value)

    def seconds_of_ms(self, key: str) -> float | None:
        """A time that the file states in milliseconds, in seconds."""
        value = self.positive(key)
        return None if value is None else value / 1e3

    def integer(self, key: str) -> int | None:
        """An integer ≥ 1."""
        value = self.positive(key)
        if value is not None and not value.is_integer():
            raise self.invalid(key, value, "an integer ≥ 1")
        return None if value is None else int(value)

    def positives(self, key: str) -> list[float] | None:
        """A list of at least one number > 0."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, list) or not value or not all(_is_number(each) and each > 0 for each in value):
            raise self.invalid(key, value, "a list of numbers > 0")
        return [float(each) for each in value]

    def required(self, key: str, value: float | None) -> float:
        """``value``, which every file of the format has.

        Raises:
            ShardbenchError: it is None.
        """
        if value is None:
            raise ShardbenchError(f"{self.path}: {key} is missing; import an unmodified file of its format")
        return value

    def unread(self) -> list[str]:
        """Paths of all values that were not read, sorted; a list counts as one value."""
        return sorted(path for path in _leaves(self.values, "") if path not in self._read)

    def invalid(self, key: str, value: object, expected: str) -> ShardbenchError:
        """The error for a value that its format does not allow."""
        return ShardbenchError(f"{self.path}: {key}={str(value)[:60]} must be {expected}")

    def _find(self, key: str) -> Any:
        value: Any = self.values
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return None
            value = value[part]
        return value


def read_file(path: Path) -> list[Content]:
    """The mappings of a JSON file that holds one mapping or a list of them.

    Raises:
        InvalidRequest: the file does not exist or cannot be read.
        ShardbenchError: it is not JSON, or has other content.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequest("data", path, f"cannot be read ({error.strerror})", "use a file of results") from None
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        values = json.loads(content)
    except UnicodeDecodeError:
        raise ShardbenchError(f"{path}: is not JSON (not UTF-8 text); use a JSON file of results") from None
    except json.JSONDecodeError as error:
        raise ShardbenchError(
            f"{path}: is not JSON ({error.msg}, line {error.lineno}); use a JSON file of results"
        ) from None
    if isinstance(values, dict):
        return [Content(path, sha256, values)]
    if isinstance(values, list) and values and all(isinstance(each, dict) for each in values):
        return [Content(path, sha256, each, number) for number, each in enumerate(values)]
    raise ShardbenchError(f"{path}: must hold a mapping or a list of mappings; use a JSON file of results")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif value not in (None, {}, []):
            yield f"{prefix}{key}"
