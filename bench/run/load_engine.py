"""Creates engines from their configs."""

from collections.abc import Mapping
from typing import Any

from bench.sweep.engine_settings import check_settings, factory_of
from engines.core.engine import Engine, Estimator, Runner
from engines.core.errors import InvalidRequest
from engines.core.load_test import LoadTester

Answering = Estimator | Runner | LoadTester
"""An engine that answers points, by stating times, by a program that is timed, or by a server under load."""


def make_engine(engine_config: Mapping[str, Any]) -> Answering:
    """The engine of a ``conf/engine/NAME.yaml``: its ``_target_`` called with all other keys.

    Raises:
        InvalidRequest: the target cannot be imported, is not an engine, or a setting is unknown or of another type.
    """
    target = str(engine_config.get("_target_", ""))
    factory = factory_of(target)
    check_settings(engine_config, factory)
    settings = {key: value for key, value in engine_config.items() if key != "_target_"}
    try:
        engine: Engine = factory(**settings)
    except OSError as error:  # a path among its settings
        raise InvalidRequest(
            "engine", engine_config.get("name"), f"cannot read {error.filename} ({error.strerror})", "use another path"
        ) from None
    except TypeError as error:
        raise InvalidRequest(
            "engine",
            engine_config.get("name"),
            str(error).replace(f"{target.rpartition('.')[2]}.__init__() ", ""),
            "see its file in conf/engine",
        ) from None
    if not isinstance(engine, Answering):
        raise InvalidRequest(
            "engine._target_", target, "is not an engine", "derive it from Estimator or Runner of engines.core.engine"
        )
    return engine
