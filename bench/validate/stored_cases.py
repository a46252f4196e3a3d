"""Measured rows of a store as cases for validation."""

from pathlib import Path

from bench.rows.store import Store
from bench.sweep.catalog import load_customised, model_from
from bench.validate.csv_cases import Case
from engines.core.chip import Chip
from engines.core.errors import ShardbenchError
from engines.core.point import Point
from engines.core.row import Row


def read_stored_cases(results_dir: Path, engine: str) -> list[Case]:
    """The newest measured row of every point that is valid or out of memory.

    Keys that the measuring engine chose have the value that it chose; ``system`` is that engine.

    Raises:
        ShardbenchError: there is no such row, or ``conf`` does not describe its model or chip.
    """
    rows = [row for row in Store(results_dir).latest().values() if row.source == "measured"]
    usable = [row for row in rows if row.valid or row.status == "oom"]
    if not usable:
        found = f"{len(rows)} measured rows, none of them valid" if rows else "no measured row"
        raise ShardbenchError(f"data={results_dir}: holds {found}; measure with shardbench run engine=jax or torch")
    return [_case(results_dir, number, row, engine) for number, row in enumerate(usable, start=1)]


def _case(results_dir: Path, number: int, row: Row, engine: str) -> Case:
    try:
        return Case(
            file=results_dir.name,
            line=number,
            system=row.system or row.engine,
            reference=row.device_kind or row.hw,
            point=_point(row, engine),
            latency_s=row.latency_s,
            oom=row.status == "oom",
        )
    except ShardbenchError as error:
        raise ShardbenchError(f"{results_dir}: row {row.point_id}: {error}") from None


def _point(row: Row, engine: str) -> Point:
    resolved = {name: getattr(row, name) for name in Point.schema() if getattr(row, name) is not None}
    if "mesh_shape" in resolved:
        resolved["mesh_shape"] = tuple(resolved["mesh_shape"])
    model = model_from(load_customised("model", row.model))
    point = Point(model=model, chip=Chip.from_config(load_customised("hw", row.hw)), engine=engine, **resolved)
    point.check()
    return point
