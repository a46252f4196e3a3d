"""Engines from their configs."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, cast

from engines.core.engine import Engine, JobProcess, Team
from engines.core.errors import InvalidRequest
from engines.core.point import Point


def make_engine(engine_config: Mapping[str, Any]) -> Engine:
    """The engine of ``conf/engine/NAME.yaml``: its ``_target_``, called with every other key.

    Raises:
        InvalidRequest: the target is no importable class, or takes no such key.
    """
    target = str(engine_config.get("_target_", ""))
    module, _, name = target.rpartition(".")
    try:
        factory = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise InvalidRequest(
            "engine._target_", target, "cannot be imported", "name a class, as in conf/engine/analytic.yaml"
        ) from None
    settings = {key: value for key, value in engine_config.items() if key != "_target_"}
    try:
        return cast(Engine, factory(**settings))
    except TypeError as error:
        raise InvalidRequest(
            "engine",
            engine_config.get("name"),
            str(error).replace(f"{name}.__init__() ", ""),
            "see its file in conf/engine",
        ) from None


def environment_of(engine: Engine, points: Sequence[Point]) -> dict[str, str]:
    """What the engine wants in its process's environment before its libraries are imported."""
    wanted: Any = getattr(engine, "environment", None)
    return dict(wanted(points)) if wanted is not None else {}


def place_of(engine: Engine) -> JobProcess | None:
    """Which process of a job of several this is to the engine; None for an engine alone."""
    place: Any = getattr(engine, "place", None)
    found: JobProcess | None = place() if place is not None else None
    return found


def join(engine: Engine) -> Team:
    """The team of an engine that :func:`place_of` gave a place."""
    team: Team = cast(Any, engine).join()
    return team
