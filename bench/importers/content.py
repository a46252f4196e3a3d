"""A result of another harness, read key by key: every key is read, kept, refused or listed as not mapped."""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench.importers.known import FILE, Known
from engines.core.errors import ShardbenchError

LARGEST: Final = 2.0**63
"""Numbers from here on count nothing, and tables of rows hold no such integers."""
LONGEST_KEPT: Final = 200
"""Characters of JSON above which a kept list or text is recorded by its size and digest."""


class NoRowSays(ShardbenchError):
    """A result is sound, and means what no row can say: others of its file are imported without it."""


class Content:
    """One mapping of a file. Keys are paths (``report.decode.latency.values``); an absent or null key is None.

    A key is *read* by a getter, which returns its value with its origin, *kept* because it changes no figure, or held
    to the value that says *off*. What is read and makes no figure is recorded in the row, what is not read is listed in
    it. Every method raises ShardbenchError with file and key if a value is not what it must be.
    """

    def __init__(self, path: Path, identity: str, values: Mapping[str, Any], entry: int | None = None) -> None:
        self.path, self.identity, self.values, self.entry = path, identity, values, entry
        self._read: set[str] = set()

    @property
    def where(self) -> str:
        """The file, and the number of the entry in it, for messages."""
        return str(self.path) if self.entry is None else f"{self.path} entry {self.entry + 1}"

    def has(self, *keys: str) -> bool:
        """Whether every key is present and not null; does not mark it as read."""
        return all(self._find(key) is not None for key in keys)

    def given(self, key: str) -> bool:
        """Whether a key has a value other than null, false and what is empty; does not mark it as read."""
        value = self._find(key)
        return not (value is None or value is False or value in ("", {}, []))

    def names(self, under: str = "") -> list[str]:
        """The keys of the mapping at ``under`` (of the whole, if empty); none if there is no mapping."""
        value = self._find(under) if under else self.values
        return list(value) if isinstance(value, Mapping) else []

    def value(self, key: str) -> Known | None:
        """Any value."""
        self._read.add(key)
        value = self._find(key)
        return None if value is None else Known(value, f"{FILE}{key}")

    def text(self, key: str) -> Known | None:
        """A string that is not empty."""
        return self._typed(key, "a word", lambda value: isinstance(value, str) and bool(value.strip()))

    def flag(self, key: str) -> Known | None:
        """True or false, also as the words that JSON made of them in some harnesses."""
        known = self._typed(key, "true or false", lambda value: str(value).lower() in ("true", "false"))
        return None if known is None else Known(str(known.value).lower() == "true", known.origin)

    def number(self, key: str, *, scale: float = 1.0, zero: bool = False) -> Known | None:
        """A number > 0 (≥ 0 with ``zero``), times ``scale``."""
        expected = f"a number {'≥' if zero else '>'} 0"
        known = self._typed(key, expected, lambda value: is_number(value) and (value > 0 or (zero and value == 0)))
        return None if known is None else Known(float(known.value) * scale, known.origin)

    def integer(self, key: str, *, zero: bool = False) -> Known | None:
        """An integer ≥ 1 (≥ 0 with ``zero``)."""
        least = 0 if zero else 1
        known = self._typed(
            key,
            f"an integer ≥ {least}",
            lambda value: is_number(value) and float(value).is_integer() and value >= least,
        )
        return None if known is None else Known(int(known.value), known.origin)

    def numbers(self, key: str, *, scale: float = 1.0) -> Known | None:
        """A list of at least one number > 0, each times ``scale``."""
        known = self._typed(
            key,
            "a list of numbers > 0",
            lambda value: (
                isinstance(value, list) and bool(value) and all(is_number(each) and each > 0 for each in value)
            ),
        )
        return None if known is None else Known([float(each) * scale for each in known.value], known.origin)

    def one_of(self, key: str, *allowed: str) -> Known | None:
        """One of some words."""
        return self._typed(key, " or ".join(allowed), lambda value: value in allowed)

    def required(self, key: str, known: Known | None) -> Known:
        """``known``, which every file of the format has.

        Raises:
            ShardbenchError: it is None.
        """
        if known is None:
            raise ShardbenchError(f"{self.where}: {key} is missing; import an unmodified file of its format")
        return known

    def keep(self, *keys: str) -> None:
        """Mark keys as read that change no figure; ``KEY.*`` marks all below ``KEY``."""
        for key in keys:
            below = self._find(key.removesuffix(".*"))
            if key.endswith(".*") and isinstance(below, Mapping):
                self._read.update(_leaves(below, key[:-1]))
            else:
                self._read.add(key.removesuffix(".*"))

    def off(self, key: str, meaning: str, *allowed: object) -> None:
        """Keep a key that changes what the figures mean, and refuse it unless null, false or ``allowed``.

        ``meaning`` completes *KEY=VALUE …*: "is beam search".
        """
        value = self._find(key)
        if self.given(key) and not any(_equal(value, each) for each in allowed):
            remedy = f", where only {' or '.join(map(str, allowed))} is imported" if allowed else ""
            raise self.left_out(key, f"{meaning}{remedy}", "import a file without it")
        self.keep(key)

    def kept(self, sources: Collection[str]) -> dict[str, Any]:
        """Key → value of what was read and is in no figure: all but ``sources``, the keys that figures come from."""
        read = {path: value for path in self._read - set(sources) if (value := self._find(path)) is not None}
        return {path: _recorded(value) for path, value in sorted(read.items())}

    def unread(self) -> list[str]:
        """Paths of all values that were neither read nor kept, sorted; a list counts as one value."""
        return sorted(path for path in _leaves(self.values, "") if path not in self._read)

    def invalid(self, key: str, value: object, expected: str) -> ShardbenchError:
        """The error for a value that its format does not allow."""
        return ShardbenchError(f"{self.where}: {key}={_short(value)} must be {expected}; import an unmodified file")

    def refused(self, key: str, problem: str, remedy: str) -> ShardbenchError:
        """The error for a value that is not supported, or contradicts others."""
        return ShardbenchError(f"{self.where}: {key}={_short(self._find(key))} {problem}; {remedy}")

    def left_out(self, key: str, problem: str, remedy: str) -> NoRowSays:
        """The error for a value that is sound, and means what no row can say."""
        return NoRowSays(str(self.refused(key, problem, remedy)))

    def _typed(self, key: str, expected: str, fits: Callable[[Any], bool]) -> Known | None:
        known = self.value(key)
        if known is not None and not fits(known.value):
            raise self.invalid(key, known.value, expected)
        return known

    def _find(self, key: str) -> Any:
        return _at(self.values, key)


def is_number(value: object) -> bool:
    """Whether a value is a finite number of a size that is measured, and not a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def _at(values: Any, path: str) -> Any:
    """The value at a path; a key of a mapping may have dots in it (``p99.9_ttft``)."""
    if not isinstance(values, Mapping):
        return None
    if path in values:
        return values[path]
    for end in (place for place, letter in enumerate(path) if letter == "."):
        found = _at(values.get(path[:end]), path[end + 1 :])
        if found is not None:
            return found
    return None


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif value not in (None, {}, []):
            yield f"{prefix}{key}"


def _equal(value: object, allowed: object) -> bool:
    """Equal as JSON: 1 is not true; words in any case."""
    if isinstance(value, str) and isinstance(allowed, str):
        return value.lower() == allowed.lower()
    return isinstance(value, bool) == isinstance(allowed, bool) and value == allowed


def _recorded(value: Any) -> Any:
    # JSON, in which rows are stored, has no infinity (a request rate, for example).
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = json.dumps(value, default=str)
    if len(text) <= LONGEST_KEPT and "NaN" not in text and "Infinity" not in text:
        return value
    size = f"{len(value)} values" if isinstance(value, (list, Mapping)) else f"{len(str(value))} characters"
    return f"{size}, sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
