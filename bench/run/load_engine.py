"""Creates engines from their configs."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from engines.core.engine import Engine, Estimator, Runner
from engines.core.errors import InvalidRequest


def make_engine(engine_config: Mapping[str, Any]) -> Estimator | Runner:
    """The engine of a ``conf/engine/NAME.yaml``: its ``_target_`` called with all other keys.

    Raises:
        InvalidRequest: the target cannot be imported, is not an engine, or does not accept a key.
    """
    target = str(engine_config.get("_target_", ""))
    module, _, name = target.rpartition(".")
    try:
        factory = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise InvalidRequest(
            "engine._target_", target, "cannot be imported", "use a class, as conf/engine/analytic.yaml does"
        ) from None
    settings = {key: value for key, value in engine_config.items() if key != "_target_"}
    try:
        engine: Engine = factory(**settings)
    except TypeError as error:
        raise InvalidRequest(
            "engine",
            engine_config.get("name"),
            str(error).replace(f"{name}.__init__() ", ""),
            "see its file in conf/engine",
        ) from None
    if not isinstance(engine, (Estimator, Runner)):
        raise InvalidRequest(
            "engine._target_", target, "is not an engine", "derive it from Estimator or Runner of engines.core.engine"
        )
    return engine
