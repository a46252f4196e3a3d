"""Keys of a model or a point that not every engine reads, and their refusal by those that do not."""

from collections.abc import Collection
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from engines.core.errors import Unsupported

if TYPE_CHECKING:
    from engines.core.point import Point

EXTENSION: Final = "extension"
"""In a field's metadata: every engine runs its default, and one that does not read the field refuses other values.

A tuple names the values that not every engine runs, where other values than the default are common to all.
"""


def check_extensions(point: "Point", engine: str, read: Collection[str] = ()) -> None:
    """Check that an engine reads every key that changes the point from what all engines run.

    Raises:
        Unsupported: a key marked :data:`EXTENSION` is not at its default, and not one of those that it ``read``.
    """
    for prefix, holder in (("model.", point.model), ("", point)):
        for each in fields(holder):
            if EXTENSION in each.metadata and each.name not in read:
                _check(prefix + each.name, getattr(holder, each.name), each, engine)


def _check(name: str, value: Any, field: Any, engine: str) -> None:
    marked = field.metadata[EXTENSION]
    if isinstance(marked, tuple):
        if value in marked:
            raise Unsupported(f"{name}={value}: engine={engine} does not run it; use an engine that reads it")
    elif value != field.default:
        plain = "null" if field.default is None else field.default
        raise Unsupported(
            f"{name}={value}: engine={engine} runs {name}={plain} alone; use an engine that reads this key"
        )
