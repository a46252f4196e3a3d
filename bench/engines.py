"""Engines from their configs."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from engines.engine import Engine
from engines.errors import AskedWrongly


def make_engine(engine_config: Mapping[str, Any]) -> Engine:
    """The engine of ``conf/engine/NAME.yaml``: its ``_target_``, called with every other key.

    Raises:
        AskedWrongly: the target is no importable class, or takes no such key.
    """
    target = str(engine_config.get("_target_", ""))
    module, _, name = target.rpartition(".")
    try:
        factory = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise AskedWrongly(
            "engine._target_", target, "cannot be imported", "name a class, as in conf/engine/analytic.yaml"
        ) from None
    settings = {key: value for key, value in engine_config.items() if key != "_target_"}
    try:
        return cast(Engine, factory(**settings))
    except TypeError as error:
        raise AskedWrongly(
            "engine",
            engine_config.get("name"),
            str(error).replace(f"{name}.__init__() ", ""),
            "see its file in conf/engine",
        ) from None
