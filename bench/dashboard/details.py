"""Whole rows in compressed chunks, of which a page loads the one that it shows."""

import base64
import gzip
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Final

from bench.run.again import command
from engines.core.row import Row

CHUNK: Final = 250
"""Rows of a chunk."""
NAMES: Final = tuple(each.name for each in fields(Row))


def chunks(rows: Sequence[Row]) -> Iterator[str]:
    """Each :data:`CHUNK` rows as JSON: a list of mappings without what is unknown, gzipped, in base64.

    ``command`` is the command that asks the row's point again; without one, ``no_command`` is the reason.
    """
    for first in range(0, len(rows), CHUNK):
        content = [{**_content(row), **command(row)} for row in rows[first : first + CHUNK]]
        packed = gzip.compress(to_json(content).encode(), compresslevel=5, mtime=0)
        yield base64.b64encode(packed).decode("ascii")


def _content(row: Row) -> dict[str, Any]:
    return {name: value for name in NAMES if (value := getattr(row, name)) is not None and value not in ([], {})}


def to_json(content: Any) -> str:
    """JSON; a number that is not finite becomes null."""
    try:
        return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(content), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value
