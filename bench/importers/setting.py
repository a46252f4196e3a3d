"""What a file states of a run besides its figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.importers.known import Known
from engines.core.point import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Keys of the point, the model's name, what the user must add (key → why), and a check of the finished point."""

    point: Mapping[str, Known] = field(default_factory=dict)
    model: Known | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Point], None] | None = None
