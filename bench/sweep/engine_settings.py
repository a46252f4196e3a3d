"""The settings of engines: which keys an engine's config may have, and of which types."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

from bench.run.limits import Limits
from bench.sweep.catalog import config_dirs, load_group, names
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.typed import check_types, types_of

HARNESS: Final[Mapping[str, Any]] = {
    "name": str,
    "_target_": str,
    "isolated": bool,
    "timeout_s": float | None,
    "memory_limit_bytes": float | None,
    "cores": int | None,
}
"""Keys of every engine that the harness reads, and their types."""


def factory_of(target: object) -> Callable[..., Any]:
    """The class that ``_target_`` of an engine's config names.

    Raises:
        InvalidRequest: it cannot be imported.
    """
    module, _, name = str(target).rpartition(".")
    try:
        found: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise InvalidRequest(
            "engine._target_", target, "cannot be imported", "use a class, as conf/engine/analytic.yaml does"
        ) from None
    if not callable(found):
        raise InvalidRequest(
            "engine._target_", target, "is not a class", "use a class derived from Estimator or Runner"
        )
    return found


@cache
def stated_types(factory: Callable[..., Any]) -> Mapping[str, Any]:
    """Setting → type, of the keys that an engine's constructor, or its dataclass ``settings_type``, states."""
    stated = getattr(factory, "settings_type", None)
    if stated is not None and is_dataclass(stated):
        return types_of(stated)
    made = factory.__init__ if inspect.isclass(factory) else factory
    named = [
        each.name
        for each in inspect.signature(made).parameters.values()
        if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD) and each.name != "self"
    ]
    try:
        hints = get_type_hints(made)
    except NameError:  # a name that only type checkers import
        hints = {}
    return {name: hints.get(name, Any) for name in named}


def check_settings(engine_config: Mapping[str, Any], factory: Callable[..., Any]) -> None:
    """Check the names and types of an engine's settings.

    Keys are those that its constructor states, those of its file in ``conf/engine``, and the harness's.

    Raises:
        InvalidRequest: a key is unknown, with the closest one; or a value is of another type.
    """
    types = {**stated_types(factory), **HARNESS}
    engine = engine_config.get("name")
    known = {*types, *_keys_of_file(str(engine), config_dirs())}
    Limits.of(engine_config)
    for key, value in engine_config.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), sorted(known), n=1)
            remedy = f"did you mean engine.{near[0]}=" if near else f"use one of {', '.join(sorted(known))}"
            raise InvalidRequest(f"engine.{key}", value, f"is not a setting of engine={engine}", remedy)
    check_types("engine.", engine_config, types, f"see conf/engine/{engine}.yaml")


@cache
def text_settings() -> Mapping[str, bool]:
    """Names of settings that are text (paths, names) in an engine that has them → whether null is a value too."""
    found: dict[str, bool] = {}
    for engine in names("engine"):
        try:
            types = stated_types(factory_of(load_group("engine", engine)["_target_"]))
        except (ShardbenchError, KeyError):
            continue  # an engine of the user's own that is not installed here; asking for it says so
        for key, wanted in types.items():
            if wanted is str or set(get_args(wanted)) == {str, type(None)}:
                found[key] = found.get(key, False) or wanted is not str
    return found


@cache
def _keys_of_file(engine: str, folders: tuple[Path, ...]) -> frozenset[str]:
    del folders  # where the file is looked up
    return frozenset(load_group("engine", engine)) if engine in names("engine") else frozenset()
