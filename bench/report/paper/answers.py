"""The rows of the paper's questions: one of each kind of evidence, from stores, or asked anew where those have none."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.report.studies.rows import points_of
from bench.rows.error_stats import relative_error
from bench.rows.frontier import time_of
from bench.rows.labels import answered
from bench.rows.pairing import OPEN, is_open, question, stated
from bench.run.make_row import PointTask, estimated
from engines.core.engine import Estimator
from engines.core.point import Point
from engines.core.row import Row
from engines.core.runtime import AUTO

SOURCES: Final = ("published", "predicted", "compiled", "measured")
"""The kinds of evidence in the order of the paper's tables: what was printed first."""
FIGURES: Final[Mapping[str, Callable[[Row], float | None]]] = {
    "latency_s": lambda row: row.latency_s,
    "time_s": time_of,
    "mfu": lambda row: row.mfu,
    "cost_chip_s_per_token": lambda row: row.cost_chip_s_per_token,
}
"""What a table or a figure shows of a row: ``time_s`` is that of a decode step, or of the whole phase."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A question and its row of each kind of evidence that there is."""

    point: Point
    rows: Mapping[str, Row]

    def value(self, source: str, figure: str) -> float | None:
        """A figure of the row of that source, where the row is valid and the figure finite."""
        row = self.rows.get(source)
        value = None if row is None or not answered(row) else FIGURES[figure](row)
        return value if value is not None and math.isfinite(value) else None

    def error(self, source: str, figure: str, against: str = "published") -> float | None:
        """(answer − reference) / reference of that figure."""
        reference = self.value(against, figure)
        return relative_error(self.value(source, figure), reference) if reference else None


@dataclass(frozen=True, slots=True)
class Asked:
    """The answers to the points of one recipe; ``anew`` counts the rows that no store had."""

    answers: Sequence[Answers]
    anew: int

    def rows(self, source: str) -> list[Row]:
        """The rows of one source, in the order of the questions."""
        return [each.rows[source] for each in self.answers if source in each.rows]


def ask(recipe: str, rows: Sequence[Row], variants: Sequence[Sequence[str]] = ((),)) -> Asked:
    """The answers to every point of ``conf/sweep/RECIPE.yaml`` that the closed forms are asked."""
    points = [point for point in points_of(recipe, variants) if point.engine == "analytic"]
    return answers_of(points, rows)


def answers_of(points: Sequence[Point], rows: Sequence[Row]) -> Asked:
    """Each point with the stored row of each source that meets it, and with what no store has of what can be looked up.

    Of several rows of a source, one with a valid time comes first, then the one that left most keys to its engine,
    then the fastest.
    """
    from engines.analytic.engine import AnalyticEngine
    from engines.published.engine import PublishedEngine

    by_question: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        by_question[stated(row)].append(row)
    found: list[dict[str, Row]] = []
    for point in points:
        asked = point.axes()
        near = by_question[question(asked)]
        mine: dict[str, Row] = {}
        for row in sorted((row for row in near if _meets(row, asked)), key=_rank):
            mine.setdefault(row.source, row)
        found.append(mine)
    anew = sum(_add(found, points, engine) for engine in (PublishedEngine(), AnalyticEngine()))
    return Asked([Answers(point, mine) for point, mine in zip(points, found, strict=True)], anew)


def _add(found: Sequence[dict[str, Row]], points: Sequence[Point], engine: Estimator) -> int:
    """Ask an engine for the points without its source's row; how many it could answer."""
    from dataclasses import replace

    missing = [place for place, mine in enumerate(found) if engine.source not in mine]
    asked = [replace(points[place], engine=engine.name) for place in missing]
    count = 0
    for place, point, estimate in zip(missing, asked, engine.estimate(asked), strict=True):
        if estimate.status == "unsupported":
            continue
        task = PointTask(point=point, point_id=point.fingerprint(engine.name), source=engine.source, sweep=None)
        found[place][engine.source] = estimated(task, estimate)
        count += 1
    return count


def _meets(row: Row, asked: Mapping[str, Any]) -> bool:
    """Whether the row has every key that the question states. What it leaves open, the row may have of any value.

    What is predicted or published is of the runtime in question; what was compiled or measured is of its engine's own.
    A program of another project's is not compiled by us.
    """
    if row.source == "compiled" and row.engine != "compiled":
        return False
    for key in OPEN:
        wanted, given = asked[key], getattr(row, key)
        if key == "runtime":
            if row.source in ("predicted", "published") and given not in (None, AUTO, wanted):
                return False
        elif wanted not in (None, "auto", given):
            return False
    return True


def _rank(row: Row) -> tuple[Any, ...]:
    left = sum(is_open(row, key) for key in OPEN)
    seconds = row.latency_s if row.latency_s is not None and math.isfinite(row.latency_s) else math.inf
    return (not answered(row), -left, seconds, row.point_id)
