"""Points from the names of models, chips and runtimes."""

from typing import Any

from bench.sweep.catalog import load_chip, load_model
from bench.sweep.runtimes import load_runtime
from engines.core.chip import Chip
from engines.core.model import Model
from engines.core.point import Point
from engines.core.runtime import Runtime


def point(model: str | Model, hw: str | Chip, runtime: str | Runtime | None = None, **keys: Any) -> Point:
    """A point of a model, a chip and a runtime, each by its name or as it is; test files bind what theirs share."""
    return Point(
        model=load_model(model) if isinstance(model, str) else model,
        chip=load_chip(hw) if isinstance(hw, str) else hw,
        runtime=load_runtime(runtime) if isinstance(runtime, str) else runtime,
        **keys,
    )
