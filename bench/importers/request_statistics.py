"""Statistics over requests that a file states under keys of its own."""

import re
from collections.abc import Mapping
from typing import Final

from bench.importers.content import Content
from bench.importers.known import Known

STATISTICS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("mean", "avg", "average"), "mean"),
    **dict.fromkeys(("median", "p50"), "median"),
    **dict.fromkeys(("std", "stddev", "std_dev"), "std"),
    **dict.fromkeys(("min", "minimum"), "min"),
    **dict.fromkeys(("max", "maximum"), "max"),
}
"""A harness's word for a statistic → the word of a row; a percentile ``p99`` keeps its name."""
PERCENTILE: Final = re.compile(r"p\d+(?:\.\d+)?")


def statistic(word: str) -> str | None:
    """The row's name of a statistic (``avg`` is ``mean``), None if the word is none."""
    return STATISTICS.get(word) or (word if PERCENTILE.fullmatch(word) else None)


def statistics_at(content: Content, name: str, path: str, scale: float = 1.0) -> dict[str, Known]:
    """The statistics that stand below ``path``: ``ttft_s.p99`` → value × ``scale``, for the name ``ttft_s``."""
    keys = {found: f"{path}.{key}" for key in content.names(path) if (found := statistic(key)) is not None}
    return statistics_of_keys(content, name, keys, scale)


def statistics_of_keys(content: Content, name: str, keys: Mapping[str, str], scale: float = 1.0) -> dict[str, Known]:
    """As :func:`statistics_at`, of a mapping statistic → key of the file."""
    found = {word: content.number(key, scale=scale, zero=True) for word, key in keys.items()}
    return {f"{name}.{word}": known for word, known in found.items() if known is not None}
