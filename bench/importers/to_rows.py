"""Imported results + the user's keys → rows."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final

from bench.importers.choices import Choices
from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.formats import FORMATS, format_of
from bench.importers.known import RULE, Known, by_rule, by_user
from bench.importers.meaning import refuse_unknown_meanings
from bench.importers.rules import sentence
from bench.run.make_row import PointTask, estimated, under_load
from bench.sweep.catalog import load_chip, load_model, with_draft
from engines.core.dtypes import ACTIVATION_DTYPES
from engines.core.engine import Estimate, Facts
from engines.core.errors import InvalidRequest
from engines.core.keys import required
from engines.core.point import Point
from engines.core.row import Row
from engines.core.serve_checks import IMPORTED

USER_KEYS: Final = tuple(name for name in Point.schema() if name != "phase")
"""Keys of the point that come from the file or the user; model, hw and phase are handled separately."""
NECESSARY: Final = (*(name for name in required(Point.schema()) if name in USER_KEYS), "weight_dtype")
OF_A_BATCH: Final = ("batch_size", "input_len", "output_len")
"""Keys that a server under load may have no one value of."""


def rows_of(content: Content, settings: Mapping[str, Any], choices: Choices) -> list[Row]:
    """The rows of one result of a file, and what of it is in none (``details.unmapped``).

    Raises:
        InvalidRequest: a required key is neither in the file nor in ``settings``, or both have it and differ.
        ShardbenchError: the file's format is unknown, or its content does not match the format.
    """
    name = format_of(content, settings["format"])
    entries = FORMATS[name].entries(content)
    refuse_unknown_meanings(content)
    chosen = [entry for entry in entries if settings["phase"] in (None, entry.phase)]
    if not chosen:
        has = " or ".join(sorted({entry.phase for entry in entries}))
        raise InvalidRequest("phase", settings["phase"], f"is not in {content.where}", f"use phase={has}")
    details = {
        "file": content.path.name.encode("utf-8", "replace").decode(),
        "sha256": content.identity.partition(":")[0],
        "format": name,
        "kept": content.kept(_sources(chosen)),
        "unmapped": content.unread(),
    }
    reference = settings["reference"] or f"{name} {details['file']}"
    return [_row(entry, content, settings, choices, details, reference, _differing(chosen)) for entry in chosen]


def _row(
    entry: ImportedResult,
    content: Content,
    settings: Mapping[str, Any],
    choices: Choices,
    details: Mapping[str, Any],
    reference: str,
    differing: set[str],
) -> Row:
    values = _values(entry, content.where, settings, differing)
    model, hw = choices.choose("model", entry.model, content.where), choices.choose("hw", entry.hw, content.where)
    point = _point(entry, values, str(model.value), str(hw.value), content.where)
    unstated = [key for key in ("act_dtype", "kv_dtype", "partitioner") if key not in values]
    named = {f"{group}_name": known.value for group, known in (("model", entry.model), ("hw", entry.hw)) if known}
    details = {**details, "timed_by": entry.timed_by, "unstated": unstated, **named}
    row = _timed(entry, point, content, details, reference, _needing(unstated, entry.phase))
    nothing: dict[str, Any] = {key: None if key == "partitioner" else "" for key in unstated}
    row = replace(row, **nothing)
    if entry.invalid_reason is not None:
        reason = "; ".join(each for each in (row.invalid_reason, entry.invalid_reason) if each)
        row = replace(row, valid=False, invalid_reason=reason)
    # It ran on another machine, with other code.
    row = replace(row, host=None, git_sha=None, git_dirty=None, versions=dict(entry.versions))
    known = {"model": model, "hw": hw, **values, **entry.figures, **{f"load.{k}": v for k, v in entry.load.items()}}
    return replace(row, origins=_origins(row, {name: each.origin for name, each in known.items()}))


def _timed(
    entry: ImportedResult,
    point: Point,
    content: Content,
    details: Mapping[str, Any],
    reference: str,
    without: Sequence[str],
) -> Row:
    """The row of the result's figures, with the metrics that follow from them."""
    figures = {name: known.value for name, known in entry.figures.items()}
    identity = point.fingerprint(f"{IMPORTED}:{content.identity}")
    task = PointTask(point=point, point_id=identity, source="published", sweep=None)
    answer = Estimate(system=entry.system, reference=reference, facts=Facts(details=details))
    if entry.phase == "serve":
        load = grouped({name: known.value for name, known in entry.load.items()})
        return under_load(task, answer, figures, load, without)
    return estimated(task, replace(answer, **figures), without)


def _needing(unstated: Sequence[str], phase: str) -> list[str]:
    """The figures that a row has not, since their formulas need what nobody stated."""
    found = []
    if "act_dtype" in unstated:
        found += ["mfu", "mbu", "peak_flops_per_s", "peak_source"]
    if "kv_dtype" in unstated and phase != "prefill":
        found.append("mbu")
    return found


def _origins(row: Row, stated: Mapping[str, str]) -> dict[str, str]:
    """The origin of every number of the row; what no file or user states is by the rule of its own name."""
    origins = {name: origin for name, origin in stated.items() if name.startswith("load.") or _holds(row, name)}
    for each in fields(row):
        value = getattr(row, each.name)
        if each.name in stated or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if each.name == "schema_version" or (value == 0 and each.name in OF_A_BATCH):
            continue
        rule = "datasheet" if each.name in ("peak_flops_per_s", "hbm_bytes_per_s") else each.name
        assert sentence(rule)
        origins[each.name] = f"{RULE}{rule}"
    return origins


def _sources(entries: Sequence[ImportedResult]) -> set[str]:
    """The keys of the file that a value of any of its results comes from."""
    found: set[str] = set()
    for entry in entries:
        known = [*entry.point.values(), *entry.figures.values(), *entry.load.values(), entry.model, entry.hw]
        found.update(key for each in known if each is not None for key in each.keys.split(", "))
    return found


def _differing(entries: Sequence[ImportedResult]) -> set[str]:
    """Keys of the point of which the phases of a file have different values, so that no one value of a user fits."""
    values = {key: [entry.point.get(key) for entry in entries] for key in USER_KEYS}
    return {key for key, each in values.items() if len({known and known.value for known in each}) > 1}


def _holds(row: Row, name: str) -> bool:
    return getattr(row, name) not in (None, "")


def _values(entry: ImportedResult, where: str, settings: Mapping[str, Any], differing: set[str]) -> dict[str, Known]:
    """The keys of the point that file or user state, or that a rule derives from them."""
    values = dict(entry.point)
    if entry.phase == "prefill":
        values["output_len"] = by_rule("no_output", 0)
    for key in USER_KEYS:
        given = settings[key]
        if given is None or (key == "output_len" and entry.phase == "prefill"):
            continue
        found = Point.schema()[key].alternatives(given)
        if len(found) != 1:
            raise InvalidRequest(key, given, "must be one value", "import each file separately")
        if key in entry.varies:
            raise InvalidRequest(key, given, f"has no one value in {where}: {entry.varies[key]}", f"omit {key}")
        if key in values and values[key].value != found[0]:
            each = (
                f", or import each phase on its own, with phase={entry.phase} for this one" if key in differing else ""
            )
            origin = values[key].origin
            problem = f"differs from {where}, which has {values[key].value} ({origin})"
            raise InvalidRequest(key, given, problem, f"omit {key}{each}")
        values.setdefault(key, by_user(key, found[0]))
    tensor, pipeline = values.get("tensor_parallel"), values.get("pipeline_parallel")
    if "num_chips" not in values and tensor is not None:
        chips = tensor.value * (1 if pipeline is None else pipeline.value)
        values["num_chips"] = by_rule("chips_of_degrees", chips, tensor, pipeline)
    weights = values.get("weight_dtype")
    if "act_dtype" not in values and weights is not None and weights.value in ACTIVATION_DTYPES:
        values["act_dtype"] = by_rule("act_of_weights", weights.value, weights)
    return values


def _point(entry: ImportedResult, values: dict[str, Known], model: str, hw: str, where: str) -> Point:
    chip = load_chip(hw)
    if chip.kind == "tpu":
        # Files state degrees of parallelism for TPUs too, whose points have layouts.
        for key in ("tensor_parallel", "pipeline_parallel"):
            if key in values and key in entry.point:
                del values[key]
    missing = [
        key
        for key in dict.fromkeys((*NECESSARY, *entry.needs))
        if key not in values and not (entry.phase == "serve" and key in OF_A_BATCH)
    ]
    if missing:
        reason = entry.needs.get(missing[0], "the file does not state it")
        also = f" (and {', '.join(missing[1:])})" if missing[1:] else ""
        raise InvalidRequest(missing[0], "", f"is missing for {where}: {reason}", f"add {missing[0]}=…{also}")
    stated = {key: known.value for key, known in values.items()}
    lengths = dict.fromkeys(OF_A_BATCH, 0) if entry.phase == "serve" else {}
    point = Point(
        model=load_model(model), chip=chip, engine=IMPORTED, phase=entry.phase, **with_draft({**lengths, **stated})
    )
    point.check()
    if entry.check is not None:
        entry.check(point)
    return point


def grouped(load: Mapping[str, Any]) -> dict[str, Any]:
    """``ttft_s.p99`` → ``{"ttft_s": {"p99": …}}``."""
    found: dict[str, Any] = {}
    for name, value in load.items():
        group, dot, part = name.partition(".")
        if dot:
            found.setdefault(group, {})[part] = value
        else:
            found[name] = value
    return found
