"""Expands a composed config into jobs and points."""

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from bench.planner.shardings import read_shardings, with_shardings
from bench.sweep.catalog import config_dirs, customised_name, load_group, model_from, with_draft
from bench.sweep.engine_settings import factory_of
from bench.sweep.options import Options, options_from
from bench.sweep.runtimes import runtime_from
from engines.core.chip import Chip
from engines.core.errors import InvalidRequest
from engines.core.model import Model
from engines.core.point import Point
from engines.core.runtime import AUTO, Runtime
from engines.published.table import PublishedRow, published_rows, rows_in, tables

GROUPS: Final = ("engine", "model", "hw", "runtime")
OPTIONS: Final = (
    *("results_dir", "sweep_name", "resume", "other_hosts", "retry", "print", "timing", "wandb"),
    *("repeat", "order", "max_parallel", "grace_s", "workers", "price"),
)

Named = Callable[[str, str], Mapping[str, Any]]
"""Config group and choice → the plain content of that choice."""


@dataclass(frozen=True, slots=True)
class EngineJob:
    """The points of one engine. ``engine_config`` is the plain content of its config."""

    engine_config: Mapping[str, Any]
    points: Sequence[Point]

    @property
    def engine(self) -> str:
        """The engine's name."""
        return str(self.engine_config["name"])


@dataclass(frozen=True, slots=True)
class Request:
    """One composed config: its jobs, one per engine, and its options."""

    jobs: Sequence[EngineJob]
    options: Options


def request_from(config: Mapping[str, Any], given: Collection[str] = (), named: Named = load_group) -> Request:
    """Expand a composed config: every combination of its lists, in every entry of its ``points``.

    The ``runtime`` of an entry says what shall be predicted or looked up; an engine that is one other runtime answers
    as itself. One on the command line is asked of every engine.

    Args:
        config: the plain content of the composed config.
        given: keys of the point on the command line: they override a recipe's points.
        named: finds the choices that ``points`` name.

    Raises:
        InvalidRequest: a key is missing or unknown, or its value is invalid.
    """
    for key in (*Point.schema(), *GROUPS, "points", *OPTIONS):
        if key not in config:
            raise InvalidRequest(f"~{key}", "", "leaves no value for a key that a point needs", f"give {key}= a value")
    for key in GROUPS:
        if not isinstance(config[key], dict) or not _is_name(config[key].get("name")):
            raise InvalidRequest(
                key, config[key], "must be a mapping with a name", f"compare it with files of conf/{key}"
            )
    base = {key: config[key] for key in (*Point.schema(), *GROUPS)}
    folders = config_dirs()
    named = cache(named)  # a recipe names the same few choices in each of its points, and a file takes a while to read
    by_engine: dict[str, tuple[Mapping[str, Any], dict[Point, None]]] = {}
    for entry in _entries(config["points"]):
        recipe_asks = "runtime" in entry and "runtime" not in given
        cell = {**base, **{key: value for key, value in entry.items() if key not in given}}
        for values in _product(cell):
            engine, model, chip, runtime = (_content(key, values.pop(key), named) for key in GROUPS)
            if recipe_asks and not _answers(engine, runtime):
                runtime = {"name": AUTO}
            values["shardings"] = read_shardings(values["shardings"])
            point = with_shardings(
                Point(
                    model=_model(_text(model), folders),
                    chip=_chip(_text(chip), folders),
                    engine=engine["name"],
                    runtime=_runtime(_text(runtime), folders),
                    **with_draft(values),
                )
            )
            by_engine.setdefault(_text(engine), (engine, {}))[1][point] = None
    jobs = [EngineJob(engine, tuple(points)) for engine, points in by_engine.values()]
    return Request(jobs, options_from(config))


def merged(requests: Sequence[Request]) -> list[Request]:
    """Requests of one job: those with the same options become one, with one job an engine and no point twice."""
    found: dict[str, tuple[Options, dict[str, tuple[Mapping[str, Any], dict[Point, None]]]]] = {}
    for request in requests:
        _, jobs = found.setdefault(repr(request.options), (request.options, {}))
        for job in request.jobs:
            _, points = jobs.setdefault(_text(job.engine_config), (job.engine_config, {}))
            points.update(dict.fromkeys(job.points))
    return [
        Request([EngineJob(engine, tuple(points)) for engine, points in jobs.values()], options)
        for options, jobs in found.values()
    ]


def without_repeats(requests: Sequence[Request]) -> tuple[list[Request], int]:
    """The requests without points that an earlier one asks of the same engine and options; and how many those are."""
    seen: set[tuple[str, str, Point]] = set()
    kept, repeats = [], 0
    for request in requests:
        jobs = []
        for job in request.jobs:
            of = (repr(request.options), _text(job.engine_config))
            points = [point for point in job.points if (*of, point) not in seen]
            seen.update((*of, point) for point in points)
            repeats += len(job.points) - len(points)
            if points:
                jobs.append(EngineJob(job.engine_config, tuple(points)))
        kept.append(Request(jobs, request.options))
    return kept, repeats


def _entries(points: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings of ``points``; a single empty one if it is null, so that the config itself is the point."""
    if points is None:
        yield {}
        return
    if not isinstance(points, list) or not points or not all(isinstance(entry, dict) for entry in points):
        raise InvalidRequest("points", points, "must be a list of mappings", "use points: [{batch_size: 1}], or null")
    for entry in points:
        for key in entry:
            known = (*GROUPS, *Point.schema())
            if key not in (*known, "from"):
                raise InvalidRequest(f"points.{key}", entry[key], "is not a key of a point", f"use {', '.join(known)}")
        if "from" not in entry:
            yield entry
            continue
        rest = {key: value for key, value in entry.items() if key != "from"}
        yield from ({**row.stated, **rest} for row in _published(entry["from"]))


def _published(asked: Any) -> Iterator[PublishedRow]:
    """The rows of ``published``, which is all of them, or of published tables by their names."""
    files = {name: path.name for name, path in tables().items()}
    for name in asked if isinstance(asked, list) else [asked]:
        if name == "published":
            yield from published_rows()
        elif name in files:
            yield from rows_in(files[name])
        else:
            raise InvalidRequest("points.from", name, "is not known", f"use published, or {', '.join(files)}")


def _product(cell: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the values, where a list is several values of its key."""
    choices: list[list[Any]] = []
    for key, value in cell.items():
        if value == []:
            raise InvalidRequest(key, value, "is an empty list", "use at least one value")
        if key in GROUPS:
            choices.append(value if isinstance(value, list) else [value])
        else:
            choices.append(Point.schema()[key].alternatives(value))
    for combination in itertools.product(*choices):
        yield dict(zip(cell, combination, strict=True))


def _content(group: str, choice: Any, named: Named) -> Mapping[str, Any]:
    """The content of a group: itself in a composed config, and of the choice that an entry of ``points`` names."""
    if isinstance(choice, Mapping) and _is_name(choice.get("name")):
        return choice
    if not _is_name(choice):
        raise InvalidRequest(f"points.{group}", choice, "is not a name", f"use one choice of conf/{group}, or a list")
    return named(group, choice)


def _answers(engine: Mapping[str, Any], runtime: Mapping[str, Any]) -> bool:
    """Whether an engine can be asked for a runtime: it predicts or looks up any, or is that one."""
    factory = factory_of(engine.get("_target_"))
    own = getattr(factory, "runtime", None)
    return bool(getattr(factory, "answers_any_runtime", False)) or own == runtime["name"]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _text(content: Mapping[str, Any]) -> str:
    """A config as text, equal where the config is."""
    return json.dumps(content, sort_keys=True, default=str)


@cache
def _model(content: str, folders: tuple[Path, ...]) -> Model:
    del folders  # where the original of a changed model is looked up
    plain = json.loads(content)
    return model_from({**plain, "name": customised_name("model", plain)})


@cache
def _chip(content: str, folders: tuple[Path, ...]) -> Chip:
    del folders
    plain = json.loads(content)
    return Chip.from_config({**plain, "name": customised_name("hw", plain)})


@cache
def _runtime(content: str, folders: tuple[Path, ...]) -> Runtime | None:
    del folders
    return runtime_from(json.loads(content))
