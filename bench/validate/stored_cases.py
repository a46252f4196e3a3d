"""Rows of a store that were measured, here or by others, as cases for validation."""

from pathlib import Path
from typing import Final

from bench.rows.store import Store
from bench.sweep.catalog import with_draft
from bench.validate.case import Case, Reading, Unused
from bench.validate.described import model_and_chip
from bench.validate.runtimes import runtime_named
from engines.core.errors import ShardbenchError
from engines.core.point import Point
from engines.core.row import Row

OBSERVED: Final = ("measured", "published")
"""Sources of times that something took; the others are computed."""


def read_stored_cases(results_dir: Path, engine: str) -> Reading:
    """The newest measured or published row of every point that is valid or out of memory.

    Keys that the measuring engine chose have the value that it chose; ``system`` is that engine, or what was measured.
    Rows without a valid time, and those whose model or chip is unknown, are unused, and so are computed ones.
    """
    file = results_dir.name or str(results_dir)
    try:
        latest = list(Store(results_dir).latest().values())
    except ShardbenchError as error:
        return Reading(unused=[Unused(file, None, str(error))])
    cases: list[Case] = []
    unused: list[Unused] = []
    observed = [row for row in latest if row.source in OBSERVED]
    for number, row in enumerate(observed, start=1):
        try:
            cases.append(_case(file, number, row, engine))
        except ShardbenchError as error:
            unused.append(Unused(file, number, f"row {row.point_id}: {error}"))
    if len(latest) > len(observed):
        computed = len(latest) - len(observed)
        unused.append(Unused(file, None, f"{computed} of {len(latest)} rows are predicted or compiled, not measured"))
    if not latest:
        unused.append(Unused(file, None, "holds no rows; measure with shardbench run engine=jax or torch"))
    return Reading(cases, unused)


def _case(file: str, number: int, row: Row, engine: str) -> Case:
    if row.phase == "serve":
        raise ShardbenchError("is a server under load, and no engine answers for one")
    if row.status != "oom" and (row.status != "ok" or not row.valid or row.latency_s is None):
        reason = row.error if row.status != "ok" else row.invalid_reason or "has no latency_s"
        raise ShardbenchError(f"{row.status if row.status != 'ok' else 'not valid'}: {reason}")
    return Case(
        file=file,
        line=number,
        system=row.system or row.engine,
        reference=row.reference or row.device_kind or row.hw,
        point=_point(row, engine),
        latency_s=row.latency_s,
        oom=row.status == "oom",
        runtime=runtime_named(row.runtime, row.system or ""),
    )


def _point(row: Row, engine: str) -> Point:
    # What an imported row leaves unstated, the engine is asked by its defaults.
    resolved = {name: getattr(row, name) for name in Point.schema() if getattr(row, name) not in (None, "")}
    if "mesh_shape" in resolved:
        resolved["mesh_shape"] = tuple(resolved["mesh_shape"])
    model, chip = model_and_chip(row.model, row.hw)
    point = Point(model=model, chip=chip, engine=engine, **with_draft(resolved))
    point.check()
    return point
