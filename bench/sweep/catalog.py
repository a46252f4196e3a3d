"""The config groups of ``conf/`` and of the user's own folders: their choices, the models and chips they describe."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from bench.sweep.config_dirs import user_dirs
from engines.core.chip import Chip
from engines.core.conf import conf_dir
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.model import Model

ASIDE: Final = frozenset({"tdp_w"})
"""Keys of a chip on which no answer depends."""


MANY: Final = 20
"""So many choices fit into one sentence."""


def config_dirs() -> tuple[Path, ...]:
    """The folders that hold config groups: the user's, then our own. Of files of one name the first counts."""
    return (*user_dirs(), conf_dir())


def names(group: str) -> list[str]:
    """The choices of a config group, sorted: ``names("hw")``."""
    return sorted(_files(group, config_dirs()))


def load_model(name: str) -> Model:
    """The model of ``model/NAME.yaml`` in the first config folder that has it.

    Raises:
        InvalidRequest: there is no such file, or its content is invalid.
    """
    return _loaded_model(name, config_dirs())


@cache
def _loaded_model(name: str, folders: tuple[Path, ...]) -> Model:
    return model_from(_named("model", name, folders))


def with_draft(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a point with the draft model itself in the place of its name, where they have one.

    Raises:
        InvalidRequest: there is no such model, or its content is invalid.
    """
    name = keys.get("draft_model")
    if not isinstance(name, str):
        return dict(keys)
    try:
        draft = model_from(load_customised("model", name)) if "+" in name else load_model(name)
    except InvalidRequest as error:
        raise InvalidRequest("draft_model", name, error.problem, error.remedy) from None
    return {**keys, "draft_model": draft}


def load_chip(name: str) -> Chip:
    """The chip of ``hw/NAME.yaml`` in the first config folder that has it.

    Raises:
        InvalidRequest: there is no such file, or its content is invalid.
    """
    return _loaded_chip(name, config_dirs())


@cache
def _loaded_chip(name: str, folders: tuple[Path, ...]) -> Chip:
    return Chip.from_config(_named("hw", name, folders))


def hw_of(device_name: str) -> str | None:
    """The choice of ``hw`` whose ``device_names`` contain the name that the driver reports; None if none does."""
    return next((hw for hw in names("hw") if device_name.strip() in load_chip(hw).device_names), None)


def model_from(content: dict[str, Any]) -> Model:
    """A model from the plain values of its config.

    A changed architecture (``palm-540b+num_layers=8``) has no published size, so its counted parameters are used.

    Raises:
        InvalidRequest: a key is missing or unknown, or its value is invalid.
    """
    try:
        model = Model(**content)
    except TypeError as error:
        raise InvalidRequest(
            "model", content.get("name"), _reason(error), "compare it with conf/model/tiny.yaml"
        ) from None
    changed = {each.partition("=")[0] for each in model.name.split("+")[1:]}
    if not changed or changed & {"published_params", "mfu_params"}:
        return model
    return replace(model, published_params=float(model.params), mfu_params=float(model.active_params))


def load_group(group: str, name: str) -> dict[str, Any]:
    """The plain values of ``GROUP/NAME.yaml`` in the first config folder that has it.

    Raises:
        InvalidRequest: there is no such choice; the message has the closest ones.
        ShardbenchError: the file is not a YAML mapping.
    """
    return _read(group, name, config_dirs())


def load_customised(group: str, name: str) -> dict[str, Any]:
    """The plain values that a row's name stands for: ``tiny+num_layers=2`` is our own ``tiny`` with one change.

    Raises:
        InvalidRequest: there is no such choice, or a changed key is not one of its keys.
    """
    original, *changes = name.split("+")
    content = load_original(group, original)
    unknown = [key for change in changes if (key := change.partition("=")[0]) not in content]
    if unknown:
        raise InvalidRequest(group, name, f"{original} has no key {unknown[0]}", "use a row with known keys")
    changed: Any = OmegaConf.to_container(OmegaConf.from_dotlist(changes))
    return {**content, **changed, "name": name}


def customised_name(group: str, content: Mapping[str, Any]) -> str:
    """The choice's name with the keys that differ from the file of that name: ``palm-540b+num_layers=8``.

    So no row of a changed model or chip passes as one of the original, wherever the change was made: on the command
    line, or in a file of the user's own with the name of ours.
    """
    name = str(content["name"])
    if name not in names(group):
        return name
    original = load_original(group, name)
    changed = [f"{key}={content[key]}" for key in content if key not in ASIDE and content[key] != original.get(key)]
    removed = [f"{key}=null" for key in original if key not in ASIDE and key not in content]
    return "+".join([name, *changed, *removed])


def _named(group: str, name: str, folders: tuple[Path, ...]) -> dict[str, Any]:
    content = _read(group, name, folders)
    if not content.get("name"):
        raise InvalidRequest(group, name, "its file has no name", f"add the line name: {name} to the file")
    return {**content, "name": customised_name(group, content)}


def load_original(group: str, name: str) -> dict[str, Any]:
    """The plain values of our own choice of that name; of the user's where we have none.

    Raises:
        InvalidRequest: there is no such choice.
        ShardbenchError: the file is not a YAML mapping.
    """
    return _read(group, name, (conf_dir(), *user_dirs()))


def _files(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """Choice → its file in the first folder that has it."""
    return {path.stem: path for folder in reversed(folders) for path in (folder / group).glob("*.yaml")}


def _read(group: str, name: str, folders: Sequence[Path]) -> dict[str, Any]:
    path = _files(group, folders).get(name)
    if path is None:
        raise unknown_choice(group, name)
    try:
        content = OmegaConf.to_container(_with_defaults(group, path, folders), resolve=True)
    except YAMLError as error:
        raise invalid_yaml(error) from None
    except OmegaConfBaseException as error:
        raise ShardbenchError(f"{path}: {_reason(error)}") from None
    if not isinstance(content, dict):
        raise ShardbenchError(f"{path}: must be a YAML mapping; compare it with another file of conf/{group}")
    return {str(key): value for key, value in content.items()}


def _with_defaults(group: str, path: Path, folders: Sequence[Path], above: tuple[Path, ...] = ()) -> Any:
    """A file upon the choices of its group that its ``defaults`` name, as Hydra composes them."""
    content = OmegaConf.load(path)
    if not isinstance(content, DictConfig) or "defaults" not in content:
        return content
    own = content.copy()
    defaults: Any = OmegaConf.to_container(own.pop("defaults"))
    layers = []
    for each in defaults if isinstance(defaults, list) else [defaults]:
        if each == "_self_":
            layers.append(own)
            continue
        below = _files(group, folders).get(each) if isinstance(each, str) else None
        if below is None or below in (*above, path):
            raise ShardbenchError(f"{path}: defaults has {each}, which is not another choice of {group}; name one")
        layers.append(_with_defaults(group, below, folders, (*above, path)))
    return OmegaConf.merge(*layers, *([] if "_self_" in defaults else [own]))


def unknown_choice(group: str, name: object) -> InvalidRequest:
    """The error for an unknown choice of a config group."""
    known = names(group)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    if near:
        remedy = f"use {' or '.join(near)}"
    elif len(known) <= MANY:
        remedy = f"use one of {', '.join(known)}"
    else:
        remedy = f"use one of conf/{group}; shardbench run --help lists them"
    return InvalidRequest(group, name, "is not known", remedy)


def invalid_yaml(error: YAMLError) -> ShardbenchError:
    """The error for a config file with invalid syntax: its path, line and problem."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return ShardbenchError(f"invalid YAML: {_reason(error)}")
    mark = error.problem_mark
    return ShardbenchError(f"{mark.name}:{mark.line + 1}: is not valid YAML ({error.problem}); fix its syntax")


def _reason(error: Exception) -> str:
    """The first line of a library's message, without the class name."""
    return (str(error).splitlines() or [type(error).__name__])[0].replace("Model.__init__() ", "")
