"""Reads a file of results: JSON, JSON lines, or the text of a format that is no JSON."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.importers.content import Content
from bench.importers.formats import FORMATS
from bench.importers.text import text_of
from engines.core.errors import InvalidRequest, ShardbenchError


def read_file(path: Path) -> list[Content]:
    """The results of a file: one mapping, a list of them, one a line, or what a format makes of its text.

    Raises:
        InvalidRequest: the file does not exist or cannot be read.
        ShardbenchError: it has other content.
    """
    try:
        text = text_of(path)
    except OSError as error:
        raise InvalidRequest("data", path, f"cannot be read ({error.strerror})", "use a file of results") from None
    except ShardbenchError as error:
        raise ShardbenchError(f"{path}: {error}") from None
    # Of the text: the same result is the same, packed or not.
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if not text.strip():
        raise ShardbenchError(f"{path}: is not JSON (it is empty); use a file of results")
    try:
        return _of_json(path, sha256, _parsed(path, text))
    except json.JSONDecodeError as error:
        found = _of_lines(path, text) or _of_text(path, sha256, text)
        if found:
            return found
        raise ShardbenchError(
            f"{path}: is not JSON ({error.msg}, line {error.lineno}); use a file of {', '.join(FORMATS)}"
        ) from None


def _parsed(path: Path, text: str) -> Any:
    """JSON, in which a key stands once and a number has a size that can be.

    Raises:
        json.JSONDecodeError: it is not JSON.
        ShardbenchError: it is JSON of another kind.
    """
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(path, pairs))
    except RecursionError:
        raise ShardbenchError(f"{path}: is nested too deeply; use a file of results") from None
    except json.JSONDecodeError:
        raise
    except ValueError:
        raise ShardbenchError(f"{path}: has an integer of thousands of digits; use a file of results") from None


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ShardbenchError(f"{path}: has {twice} twice; import an unmodified file")
    return found


def _of_json(path: Path, sha256: str, values: Any) -> list[Content]:
    for each in FORMATS.values():
        gathered: list[Mapping[str, Any]] | None = each.gather(values) if each.gather is not None else None
        if gathered:
            return [Content(path, f"{sha256}:{number}", result, number) for number, result in enumerate(gathered)]
    if isinstance(values, dict):
        return [Content(path, sha256, values)]
    if isinstance(values, list) and values and all(isinstance(each, dict) for each in values):
        # Entries of a list differ by their index, because two may have the same point.
        return [Content(path, f"{sha256}:{number}", each, number) for number, each in enumerate(values)]
    raise ShardbenchError(f"{path}: must hold a mapping or a list of mappings; use a JSON file of results")


def _of_lines(path: Path, text: str) -> list[Content]:
    """One result a line. A line is known by its own content, so that lines added later make no row of it anew."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        return []
    found: list[Content] = []
    seen: Counter[str] = Counter()
    for number, line in enumerate(lines):
        try:
            values = _parsed(path, line)
        except json.JSONDecodeError as error:
            if number == 0:
                return []
            raise ShardbenchError(
                f"{path}: line {number + 1} is not JSON ({error.msg}), and those before are; remove it"
            ) from None
        if not isinstance(values, dict):
            return []
        digest = hashlib.sha256(line.strip().encode()).hexdigest()
        again = f":{seen[digest]}" if seen[digest] else ""
        seen[digest] += 1
        found.append(Content(path, f"{digest}{again}", values, number))
    return found


def _of_text(path: Path, sha256: str, text: str) -> list[Content]:
    for each in FORMATS.values():
        entries: list[Mapping[str, Any]] | None = each.parse(text) if each.parse is not None else None
        if entries:
            return [Content(path, f"{sha256}:{number}", values, number) for number, values in enumerate(entries)]
    return []
