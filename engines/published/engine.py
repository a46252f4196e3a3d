"""The engine that returns published measurements."""

from collections.abc import Sequence
from typing import Any, ClassVar

from engines.core.digest import digest
from engines.core.engine import Estimate, Estimator, Facts
from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.core.row import Source
from engines.published.systems import release_of
from engines.published.table import PublishedRow, published_rows, rows_of


class PublishedEngine(Estimator):
    """Looks a point up in the published rows. A point without a published row is unsupported.

    Rows of several releases of one runtime are one question: the newest answers, unless ``system`` names another.
    """

    name: ClassVar[str] = "published"
    source: ClassVar[Source] = "published"
    code: ClassVar[Sequence[str]] = ("published",)
    answers_any_runtime: ClassVar[bool] = True

    def __init__(self, system: str = "auto", **_settings: Any) -> None:
        """``system`` as a table has it (``tensorrt-llm 0.5.0``): no other row answers; ``auto`` is every system."""
        self.system = system
        if system == "auto":
            return
        known = sorted({row.system for row in published_rows()})
        if system not in known:
            raise InvalidRequest("engine.system", system, "is in no published table", f"use {', '.join(known)}")
        self.options = {"system": system}

    def program_id(self, point: Point) -> str:
        """A digest of the published rows that match the point, possibly none."""
        return _program_id(self._matching(point))

    def estimate(self, points: Sequence[Point]) -> list[Estimate]:
        """One estimate per point: the published row, or unsupported."""
        return [self._look_up(point) for point in points]

    def _look_up(self, point: Point) -> Estimate:
        found = self._matching(point)
        if not found:
            return Estimate(
                status="unsupported",
                error=f"no published row for {_label(point)}",
                facts=Facts(program_id=_program_id(found)),
            )
        if len(found) > 1:
            differing = [key for key in ("runtime", *point.schema()) if len({row.stated.get(key) for row in found}) > 1]
            keys = " or ".join(differing) or "system"
            return Estimate(
                status="unsupported",
                error=f"{len(found)} published rows match {_label(point)}; set {keys} to select one",
                facts=Facts(program_id=_program_id(found)),
            )
        return _estimate(point, found[0])

    def _matching(self, point: Point) -> list[PublishedRow]:
        rows = [row for row in rows_of(point) if self.system in ("auto", row.system)]
        newest: dict[Any, tuple[int, ...]] = {}
        for row in rows:
            runtime = row.stated.get("runtime")
            newest[runtime] = max(newest.get(runtime, ()), release_of(row.system))
        return [row for row in rows if release_of(row.system) == newest[row.stated.get("runtime")]]


def _program_id(found: Sequence[PublishedRow]) -> str:
    return digest(found)


def _estimate(point: Point, row: PublishedRow) -> Estimate:
    requested = point.axes()
    resolved = {key: value for key, value in row.stated.items() if requested[key] in (None, "auto")}
    details = {"doubt": row.doubt} if row.doubt else {}
    facts = Facts(program_id=_program_id([row]), resolved=resolved, details=details)
    if row.status != "ok":
        return Estimate(
            status=row.status,
            error=f"published as out of memory ({row.reference})",
            system=row.system,
            reference=row.reference,
            facts=facts,
        )
    return Estimate(
        latency_s=row.latency_s,
        ttft_s=row.latency_s if point.phase == "prefill" else None,
        step_time_s=row.latency_s / point.output_len if point.phase == "decode" and row.latency_s else None,
        system=row.system,
        reference=row.reference,
        published_mfu=row.mfu,
        facts=facts,
    )


def _label(point: Point) -> str:
    return (
        f"{point.model.name} on {point.num_chips} {point.chip.name}, {point.phase}, batch {point.batch_size}, "
        f"{point.input_len} in, {point.output_len} out, {point.weight_dtype}"
    )
