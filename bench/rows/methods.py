"""What a row does beside running the whole model, all of it on its chips, a token a pass: its methods, in words.

A pruned model, a speculated token or layers that wait in host memory are another question than the plain run of the
same model, so no list of the best, no frontier and no line of a figure has both as if they were one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from engines.core.method_keys import MethodKeys
from engines.core.point import Point
from engines.core.row import Row

PARTITIONING: Final = ("sequence_parallel", "micro_batches")
"""Keys of :class:`MethodKeys` that say how the plain run is split, as layouts do."""
WAITING: Final = ("offload", "offload_kv")
METHODS: Final = tuple(
    name
    for name in Point.schema()
    if (name in vars(MethodKeys)["__annotations__"] or name in WAITING)
    if name not in PARTITIONING
)
"""The keys that make a row another method's, in the order of a row."""
FILES: Final = ("shardings",)
"""Keys whose values are as long as a file."""


def methods_of(row: Row) -> Mapping[str, Any]:
    """The keys of :data:`METHODS` that were asked for beside their defaults, with their values; empty of a plain row.

    What an engine measured or chose (an acceptance rate) is no part of the question.
    """
    schema = Point.schema()
    return {
        name: value
        for name in METHODS
        if (value := getattr(row, name)) not in (None, schema[name].default) and name not in row.chosen
    }


def is_plain(row: Row) -> bool:
    """Whether the row runs the whole model, all of it on its chips, a token a pass."""
    return not methods_of(row)


def method_label(row: Row) -> str:
    """``speculative=draft draft_model=palm-8b draft_len=4``; empty of a plain row."""
    found = methods_of(row)
    return " ".join(f"{name}=…" if name in FILES else f"{name}={_text(value)}" for name, value in found.items())


def plain_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows without any method."""
    return [row for row in rows if is_plain(row)]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
