"""Points from the names of models and chips."""

from typing import Any

from bench.sweep.catalog import load_chip, load_model
from engines.core.chip import Chip
from engines.core.model import Model
from engines.core.point import Point


def point(model: str | Model, hw: str | Chip, **keys: Any) -> Point:
    """A point of a model and a chip, each by its name or as it is. A test file binds what its points share."""
    return Point(
        model=load_model(model) if isinstance(model, str) else model,
        chip=load_chip(hw) if isinstance(hw, str) else hw,
        **keys,
    )
