"""Imported results + the user's keys → rows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.formats import FORMATS, format_of
from bench.run.make_row import PointTask, estimated
from bench.sweep.catalog import hw_of, load_chip, load_model, names
from engines.core.errors import InvalidRequest
from engines.core.keys import required
from engines.core.point import Point
from engines.core.row import Row

USER_KEYS: Final = tuple(name for name in Point.schema() if name != "phase")
"""Keys of the point that come from the file or the user; model, hw and phase are handled separately."""
NECESSARY: Final = (*(name for name in required(Point.schema()) if name in USER_KEYS), "weight_dtype")
ENGINE: Final = "imported"


def rows_of(content: Content, settings: Mapping[str, Any]) -> list[Row]:
    """The rows of one mapping of a file; ``details.unmapped`` of each lists the keys that were not read.

    Raises:
        InvalidRequest: a required key is neither in the file nor in ``settings``, or both have it and differ.
        ShardbenchError: the file's format is unknown, or its content does not match the format.
    """
    name = format_of(content, settings["format"])
    entries = FORMATS[name].entries(content)
    chosen = [entry for entry in entries if settings["phase"] in (None, entry.phase)]
    if not chosen:
        has = " or ".join(sorted({entry.phase for entry in entries}))
        raise InvalidRequest("phase", settings["phase"], f"is not in {content.path}", f"use phase={has}")
    origin = {"file": content.path.name, "sha256": content.sha256, "format": name, "unmapped": content.unread()}
    # Entries of a list differ by their index, because two may have the same point.
    code = f"imported:{content.sha256}" + ("" if content.entry is None else f":{content.entry}")
    reference = settings["reference"] or f"{name} {content.path.name}"
    return [_row(entry, _point(entry, content.path, settings), code, origin, reference) for entry in chosen]


def _row(entry: ImportedResult, point: Point, code: str, origin: Mapping[str, Any], reference: str) -> Row:
    file_names = {"model_name": entry.model_name, "hw_name": entry.hw_name}
    details = {**entry.estimate.facts.details, **{key: name for key, name in file_names.items() if name}, **origin}
    facts = replace(entry.estimate.facts, details=details)
    estimate = replace(entry.estimate, facts=facts, reference=reference)
    task = PointTask(point=point, point_id=point.fingerprint(code), source="published", sweep=None)
    if entry.load is None:
        row = estimated(task, estimate)
    else:
        # A static batch with the same throughput has the server's rates, but not its latency.
        row = estimated(task, replace(estimate, latency_s=point.tokens / entry.load.tokens_per_s))
        row = replace(
            row,
            latency_s=None,
            ttft_s=entry.load.ttft_s,
            tpot_s=entry.load.tpot_s,
            step_time_s=None,
            tokens_per_s_per_user=None,
            mbu=None,
            valid=False,
            invalid_reason="a server under load has no latency of a static batch",
        )
    # It ran on another machine, with other code.
    return replace(row, host=None, git_sha=None, git_dirty=None, versions=dict(entry.estimate.facts.versions))


def _point(entry: ImportedResult, path: Path, settings: Mapping[str, Any]) -> Point:
    values: dict[str, Any] = dict(entry.stated)
    for key in USER_KEYS:
        given = settings[key]
        if given is None:
            continue
        found = Point.schema()[key].alternatives(given)
        if len(found) != 1:
            raise InvalidRequest(key, given, "must be one value", "import each file separately")
        [given] = found
        if values.get(key, given) != given:
            raise InvalidRequest(key, given, f"differs from {path}, which has {values[key]}", f"omit {key}")
        values[key] = given
    if entry.phase == "prefill":
        values["output_len"] = 0
    if "num_chips" not in values and "tensor_parallel" in values:
        values["num_chips"] = values["tensor_parallel"] * values.get("pipeline_parallel", 1)
    model = _choice("model", settings["model"], entry.model_name, path)
    hw = _choice("hw", settings["hw"], entry.hw_name, path)
    missing = [key for key in dict.fromkeys((*NECESSARY, *entry.needs)) if key not in values]
    if missing:
        reason = entry.needs.get(missing[0], "the file does not state it")
        also = f" (and {', '.join(missing[1:])})" if missing[1:] else ""
        raise InvalidRequest(missing[0], "", f"is missing for {path}: {reason}", f"add {missing[0]}=…{also}")
    point = Point(model=load_model(model), chip=load_chip(hw), engine=ENGINE, phase=entry.phase, **values)
    point.check()
    return point


def _choice(group: str, given: str | None, named: str | None, path: Path) -> str:
    """The choice of ``conf/GROUP``: the user's, else the file's name if it equals a choice."""
    if given is not None:
        return given
    found = None
    if named is not None:
        found = hw_of(named) if group == "hw" else None
        found = found or named.rpartition("/")[2].lower()
    if found in names(group):
        return str(found)
    problem = f"{path} has {named}, which is not in conf/{group}" if named else f"{path} does not state it"
    raise InvalidRequest(group, "", problem, f"add {group}=…, one of {', '.join(names(group))}")
