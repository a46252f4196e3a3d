"""How the point of a stored row is asked again: its point, its engine's config, its command."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from bench.sweep.catalog import config_dirs, load_customised, load_group, model_from, names, with_draft
from bench.sweep.runtimes import load_runtime
from engines.core.chip import Chip
from engines.core.errors import ShardbenchError
from engines.core.layout import VARIANTS
from engines.core.point import Point
from engines.core.row import POINT_FIELDS, PROGRAM, Row
from engines.core.runtime import AUTO
from engines.core.versions import versions_of

NOT_SETTINGS: Final = frozenset({"tolerance", "decode", "name"})
"""Keys of ``details`` whose meaning differs from the same key in an engine's config."""
GROUPS: Final = ("model", "hw")


def requested_point(row: Row) -> Point:
    """The point as requested: keys that the engine chose are left out.

    Raises:
        ShardbenchError: ``conf`` does not describe the row's model or chip, or its values make no valid point.
    """
    keys = stated(row)
    if "mesh_shape" in keys:
        keys["mesh_shape"] = tuple(keys["mesh_shape"])
    keys["model"] = model_from(load_customised("model", row.model))
    keys["runtime"] = load_runtime(keys.get("runtime", AUTO))
    keys["chip"] = Chip.from_config(load_customised("hw", keys.pop("hw")))
    return Point(**with_draft(keys))


def stated(row: Row) -> dict[str, Any]:
    """The keys of the row's point that were not left to the engine."""
    return {
        key: value for key in POINT_FIELDS if key not in row.chosen and (value := getattr(row, key)) not in (None, "")
    }


def settings(row: Row) -> dict[str, Any]:
    """The settings of the engine's config that the row records."""
    return _settings(row, _config(row.engine, config_dirs()))


def by_config(rows: Iterable[Row]) -> tuple[list[tuple[dict[str, Any], list[Row]]], dict[int, str]]:
    """Rows grouped by the config of their engine, with the settings that they record.

    Returns:
        configs with their rows; id() of each row whose config is not known → the reason.
    """
    groups: dict[str, tuple[dict[str, Any], list[Row]]] = {}
    refused: dict[int, str] = {}
    for row in rows:
        if row.engine not in names("engine"):
            refused[id(row)] = f"engine={row.engine} is not known"
        elif "checkpoint" in row.details:
            refused[id(row)] = f"the folder of its checkpoint {row.details['checkpoint']} is not known"
        else:
            config = load_group("engine", row.engine) | settings(row)
            groups.setdefault(json.dumps(config, sort_keys=True, default=str), (config, []))[1].append(row)
    return list(groups.values()), refused


def other_versions(row: Row, libraries: Sequence[str]) -> str | None:
    """The first of an engine's libraries of which a row was made with another version than is installed; None if all
    are the same.
    """
    here = versions_of(libraries)
    for name in libraries:
        if row.versions.get(name) != here.get(name):
            return f"made with {name} {row.versions.get(name)}, but {here.get(name)} is installed"
    return None


def _settings(row: Row, config: Mapping[str, Any]) -> dict[str, Any]:
    peer = row.details.get("peer")
    told = {**row.details, **(peer.get("options", {}) if isinstance(peer, dict) else {})}
    found = {key: value for key, value in told.items() if key in config and key not in NOT_SETTINGS}
    if "tried_s" in row.details and row.engine == "compiled":
        found |= _searched(row, [name.split()[1:] for name in row.details["tried_s"]])
    return {key: value for key, value in found.items() if value != config[key]}


def _searched(row: Row, tried: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The settings of a search, from the words after the layout of each plan that it tried: ``latency unrolled``."""
    found: dict[str, Any] = {}
    if "collectives" in row.chosen:
        found["try_collectives"] = list(
            dict.fromkeys(next((word for word in each if word in VARIANTS), "plain") for each in tried)
        )
    ways = {"unrolled" in each for each in tried}
    if True in ways:
        found["unroll_layers"] = "auto" if False in ways else True
    return found


@cache
def _config(engine: str, folders: tuple[Path, ...]) -> Mapping[str, Any]:
    """The engine's config; empty if there is none in these folders."""
    del folders  # where it is looked up
    return load_group("engine", engine) if engine in names("engine") else {}


def words(row: Row) -> list[str]:
    """The arguments of ``shardbench run`` that ask the row's point again, with what the engine chose left to it.

    Raises:
        ShardbenchError: no run of an engine made the row, or its engine is not known here.
    """
    if row.phase == PROGRAM:
        raise ShardbenchError("a program that somebody else wrote; shardbench estimate asks it again")
    if row.engine == "imported":
        raise ShardbenchError("read from another harness's file; shardbench import reads it again")
    config = _config(row.engine, config_dirs())
    if not config:
        raise ShardbenchError(f"engine={row.engine} is not known here")
    for key in ("checkpoint", "draft_checkpoint"):
        if key in row.details:
            raise ShardbenchError(f"measured with a {key} whose folder the row does not say; add engine.{key}=")
    found = []
    for key, value in stated(row).items():
        if key in GROUPS:
            name, *changes = str(value).split("+")
            found += [f"{key}={name}", *(f"{key}.{change}" for change in changes)]
        elif not (key == "runtime" and value == AUTO):
            found.append(f"{key}={_plain(value)}")
    return found + [f"engine.{key}={_plain(value)}" for key, value in _settings(row, config).items()]


def command(row: Row) -> dict[str, str]:
    """``{"command": …}``, or ``{"no_command": …}`` with the reason in one sentence."""
    try:
        return {"command": shlex.join(["shardbench", "run", *words(row), "resume=false"])}
    except ShardbenchError as error:
        return {"no_command": str(error)}


def _plain(value: Any) -> str:
    """A value in the grammar of the command line."""
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_plain, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_plain(each)}" for key, each in value.items()) + "}"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    # A changed model's name has signs of the grammar: tiny+num_layers=2.
    return f"'{value}'" if isinstance(value, str) and "=" in value else str(value)
