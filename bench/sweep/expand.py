"""Expands a composed config into jobs and points."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.measure.timing import TimingConfig
from bench.sweep.catalog import customised_name, load_chip, load_group, load_model, model_from
from engines.core.chip import Chip
from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.published.table import published_rows

GROUPS: Final = ("model", "hw", "engine")
PRINT_FORMATS: Final = ("table", "json", "none")
RETRIABLE: Final = ("failed", "timeout", "oom", "unsupported", "invalid")


@dataclass(frozen=True, slots=True)
class EngineJob:
    """The points of one engine. ``engine_config`` is the plain content of its config."""

    engine_config: Mapping[str, Any]
    points: Sequence[Point]

    @property
    def engine(self) -> str:
        """The engine's name."""
        return str(self.engine_config["name"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the whole command."""

    results_dir: str
    sweep_name: str | None
    resume: bool
    retry: Sequence[str]
    print: str
    timing: TimingConfig
    wandb: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One composed config: its jobs, one per engine, and its options."""

    jobs: Sequence[EngineJob]
    options: Options


def request_from(config: Mapping[str, Any], grid: Mapping[str, Sequence[str]], given: Collection[str]) -> Request:
    """Expand a composed config.

    Args:
        config: the plain content of the composed config.
        grid: lists for config groups (``model=[a,b]``), which Hydra itself does not support.
        given: keys of the point on the command line: they override a recipe's points.

    Raises:
        InvalidRequest: a key is unknown or its value is invalid.
    """
    base = {key: config[key] for key in (*Point.schema(), *GROUPS)}
    for key in GROUPS:
        if not isinstance(base[key], dict) or "name" not in base[key]:
            raise InvalidRequest(
                key, base[key], "must be a mapping with a name", f"compare it with files of conf/{key}"
            )
    names = {key: customised_name(key, base[key]) for key in ("model", "hw")}
    names["engine"] = str(base["engine"]["name"])
    loaded: dict[tuple[str, str], Any] = {
        ("model", names["model"]): model_from({**base["model"], "name": names["model"]}),
        ("hw", names["hw"]): Chip.from_config({**base["hw"], "name": names["hw"]}),
        ("engine", names["engine"]): dict(base["engine"]),
    }
    by_engine: dict[str, dict[Point, None]] = {}
    for entry in _entries(config.get("points")):
        unset = {key: value for key, value in entry.items() if key not in given}
        cell = {**base, **names, **unset, **grid}
        for values in _product(cell):
            engine = values.pop("engine")
            model = values.pop("model")
            chip = values.pop("hw")
            point = Point(
                model=loaded[("model", model)] if ("model", model) in loaded else load_model(model),
                chip=loaded[("hw", chip)] if ("hw", chip) in loaded else load_chip(chip),
                engine=engine,
                **values,
            )
            by_engine.setdefault(engine, {})[point] = None
    jobs = []
    for engine, points in by_engine.items():
        engine_config = loaded.get(("engine", engine)) or load_group("engine", engine)
        jobs.append(EngineJob(engine_config, tuple(points)))
    return Request(jobs, _options(config))


def _options(config: Mapping[str, Any]) -> Options:
    if config["print"] not in PRINT_FORMATS:
        raise InvalidRequest("print", config["print"], "is not known", f"use one of {', '.join(PRINT_FORMATS)}")
    retry = config["retry"] if isinstance(config["retry"], list) else [config["retry"]]
    for status in retry:
        if status not in RETRIABLE:
            raise InvalidRequest("retry", status, "is not known", f"use one or more of {', '.join(RETRIABLE)}")
    if config["sweep_name"] is not None and not isinstance(config["sweep_name"], str):
        raise InvalidRequest("sweep_name", config["sweep_name"], "must be a name or null", "use letters and digits")
    if not isinstance(config["resume"], bool):
        raise InvalidRequest("resume", config["resume"], "must be true or false", "use resume=true or resume=false")
    return Options(
        results_dir=str(config["results_dir"]),
        sweep_name=config["sweep_name"],
        resume=config["resume"],
        retry=retry,
        print=config["print"],
        timing=TimingConfig(**config["timing"]),
        wandb=config["wandb"],
    )


def _entries(points: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings of ``points``; a single empty one if it is null, so that the config itself is the point."""
    if points is None:
        yield {}
        return
    if not isinstance(points, list) or not all(isinstance(entry, dict) for entry in points):
        raise InvalidRequest("points", points, "must be a list of mappings", "use points: [{batch_size: 1}]")
    for entry in points:
        for key in entry:
            known = (*GROUPS, *Point.schema())
            if key not in (*known, "from"):
                raise InvalidRequest(f"points.{key}", entry[key], "is not a key of a point", f"use {', '.join(known)}")
        if "from" not in entry:
            yield entry
            continue
        if entry["from"] != "published":
            raise InvalidRequest("points.from", entry["from"], "is not known", "use from: published")
        rest = {key: value for key, value in entry.items() if key != "from"}
        yield from ({**row.stated, **rest} for row in published_rows())


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
