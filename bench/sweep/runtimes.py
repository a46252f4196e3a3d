"""The runtimes of ``conf/runtime`` and of the user's own folders, and those changed in a few constants."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bench.sweep.catalog import config_dirs, load_group, load_original
from engines.core.conf import conf_dir
from engines.core.errors import InvalidRequest
from engines.core.runtime import AUTO, Runtime, shipped


def load_runtime(name: str) -> Runtime | None:
    """The runtime of ``runtime/NAME.yaml`` in the first config folder that has it; None for ``auto``.

    ``vllm+layer_s=2e-05`` is our own with one constant changed, as rows name it.

    Raises:
        InvalidRequest: there is no such file, its content is invalid, or it has no such constant.
    """
    return _loaded(name, config_dirs())


@cache
def _loaded(name: str, folders: tuple[Path, ...]) -> Runtime | None:
    del folders  # a part of the cache's key
    original, *changes = name.split("+")
    if not changes:
        return runtime_from(load_group("runtime", name))
    content = load_original("runtime", original)
    for change in changes:
        key, _, value = change.partition("=")
        chip, dot, constant = key.rpartition(".")
        known: dict[str, Any] = content.setdefault("constants", {})
        if not dot and key not in known:
            raise InvalidRequest("runtime", name, f"{original} has no constant {key}", f"use one of {', '.join(known)}")
        place = content.setdefault("on_chip", {}).setdefault(chip, {}) if dot else known
        if value == "null":
            place.pop(constant, None)
            continue
        try:
            place[constant] = float(value)
        except ValueError:
            raise InvalidRequest("runtime", name, f"{key} is no number", "write it as 2e-05") from None
    return runtime_from(content)


def runtime_from(content: Mapping[str, Any]) -> Runtime | None:
    """A runtime from the plain values of its config; None for ``auto``.

    One that has a name of ours and other constants is named with what differs: ``vllm+layer_s=2e-05``. So no row of
    changed constants passes as one of ours.

    Raises:
        InvalidRequest: a key is missing or unknown, or its value is invalid.
    """
    name = content.get("name")
    if name == AUTO:
        if len(content) > 1:
            key = next(key for key in content if key != "name")
            raise InvalidRequest(f"runtime.{key}", content[key], "is given to runtime=auto", "use runtime=best")
        return None
    made = Runtime.from_config(content)
    if not (conf_dir() / "runtime" / f"{name}.yaml").is_file():
        return made
    ours, mine = _values(shipped(made.name)), _values(made)
    changed = [f"{key}={value!r}" for key, value in mine.items() if value != ours.get(key)]
    changed += [f"{key}=null" for key in ours if key not in mine]
    return Runtime.from_config({**content, "name": "+".join([made.name, *changed])}) if changed else made


def _values(runtime: Runtime) -> dict[str, float]:
    """Constant, or chip and constant, → value."""
    found = {name: float(constant.value) for name, constant in runtime.constants.items()}
    for chip, constants in runtime.on_chip.items():
        found |= {f"{chip}.{name}": float(constant.value) for name, constant in constants.items()}
    return found
