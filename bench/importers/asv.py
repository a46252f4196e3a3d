"""airspeed velocity (asv) result files: ``results/<machine>/<commit>-<environment>.json``, times in seconds.

A benchmark is a point if its parameter says so, as those are that shardbench writes (``shardbench results export
format=asv``): ``model=tiny hw=cpu …``, and the last part of its name is the phase.
"""

import ast
import math
import shlex
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Final, cast

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.core.point_keys import PHASES, Phase

WANTED: Final = ("commit_hash", "result_columns", "results", "env_name")
KEPT: Final = ("benchmark", "commit_hash", "env_name", "date", "machine", "requirements.*", "started_at")


def gather(values: Any) -> list[Mapping[str, Any]] | None:
    """A mapping for each benchmark and its parameters; None for JSON of another kind."""
    if not isinstance(values, dict) or not all(name in values for name in WANTED):
        return None
    columns, results = values["result_columns"], values["results"]
    if not isinstance(columns, list) or not isinstance(results, dict):
        return None
    about = {name: values.get(name) for name in ("commit_hash", "env_name", "date", "requirements")}
    params = values.get("params")
    about["machine"] = params.get("machine") if isinstance(params, dict) else None
    found: list[Mapping[str, Any]] = []
    for name, row in results.items():
        of = dict(zip(columns, row, strict=False)) if isinstance(row, list) else {}
        lists = of.get("params") or []
        points = product(*lists) if isinstance(lists, list) and all(isinstance(each, list) for each in lists) else []
        for place, point in enumerate(points):
            each = {"benchmark": name, "point": _words(point), **about, "started_at": of.get("started_at")}
            found.append({**each, "result": _at(of.get("result"), place), "samples": _at(of.get("samples"), place)})
    return found or None


def matches(content: Content) -> bool:
    """Whether the result has this format."""
    return content.has("benchmark", "point", "commit_hash", "env_name")


def entries(content: Content) -> list[ImportedResult]:
    """The point that the parameter says, with its time and samples."""
    name = content.required("benchmark", content.text("benchmark"))
    system, _, phase = str(name.value).rpartition(".")
    if phase not in PHASES or phase == "serve" or not system:
        raise content.left_out(
            "benchmark", "names no phase of a point", "import benchmarks such as measured.jax.decode"
        )
    time, samples = content.number("result"), content.numbers("samples")
    if time is None:
        raise content.left_out("result", "is no time: the point failed or was left out", "import results with times")
    if samples is not None and not min(samples.value) <= time.value <= max(samples.value):
        raise content.refused("result", "is beyond all of its samples", "import an unmodified file")
    content.keep(*KEPT)
    point = {key: _value(content, key) for key in content.names("point") if key in Point.schema()}
    if phase == "prefill":
        point.setdefault("output_len", by_rule("no_output", 0))
    return [
        ImportedResult(
            phase=cast("Phase", phase),
            timed_by="asv",
            system=system,
            point=stated(**point),
            figures=stated(latency_s=time, samples_s=samples),
            model=content.text("point.model"),
            hw=content.text("point.hw"),
            versions=_versions(content),
        )
    ]


def _at(values: Any, place: int) -> Any:
    """The value of one combination of parameters; asv writes NaN for one that it skipped."""
    value = values[place] if isinstance(values, list) and place < len(values) else None
    return None if isinstance(value, float) and math.isnan(value) else value


def _words(parameters: Sequence[object]) -> dict[str, str]:
    """Key → value of parameters that are words like ``batch_size=8``; others by their number."""
    found: dict[str, str] = {}
    for number, text in enumerate(parameters, start=1):
        words = _split(text)
        if words and all("=" in word for word in words):
            found |= dict(word.split("=", 1) for word in words)
        else:
            found[f"parameter_{number}"] = str(text)
    return found


def _split(text: object) -> Sequence[str]:
    """The words of a parameter, which asv keeps as Python would write it."""
    try:
        value = ast.literal_eval(str(text))
        return shlex.split(value) if isinstance(value, str) else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []


def _value(content: Content, key: str) -> Known | None:
    known = content.text(f"point.{key}")
    if known is None:
        return None
    try:
        value = Point.schema()[key].about.kind.parse(key, str(known.value))
    except InvalidRequest as error:
        raise content.refused(f"point.{key}", error.problem, error.remedy) from None
    return Known(value, known.origin)


def _versions(content: Content) -> dict[str, str]:
    found = {name: content.value(f"requirements.{name}") for name in content.names("requirements")}
    return {name: str(known.value) for name, known in found.items() if known is not None}
