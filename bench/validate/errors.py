"""Compares an estimator with measured times: the error of each row, and statistics of the errors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.measure.timing import TimingConfig
from bench.rows.error_stats import error_stats, oom_counts, relative_error
from bench.run.child import evaluate
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask
from bench.run.progress import Output
from bench.sweep.catalog import load_group
from bench.validate.case import Case
from engines.core.engine import Estimate, Estimator
from engines.core.errors import InvalidRequest
from engines.core.row import Row

ERROR_FIGURES: Final = ("mape", "median_ape", "p90_ape", "worst_ape", "bias")
GROUPS: Final[dict[str, Callable[[Case], str]]] = {
    "source": lambda case: case.reference,
    "system": lambda case: case.system,
    "chip": lambda case: case.point.chip.name,
    "runtime": lambda case: case.runtime,
    "model": lambda case: case.point.model.name,
    "phase": lambda case: case.point.phase,
    "parallelism": lambda case: case.parallelism,
    "batch": lambda case: case.batch,
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One case and the engine's estimate, or the row that a child process made from the estimate.

    ``error`` is (predicted − measured)/measured, None unless both times exist.
    """

    case: Case
    estimate: Estimate | Row

    @property
    def error(self) -> float | None:
        """Signed relative error, as a fraction."""
        return relative_error(self.estimate.latency_s, self.case.latency_s) if self.estimate.status == "ok" else None

    @property
    def inside(self) -> bool | None:
        """Whether the measured time lies in the prediction's 80% interval; None without either."""
        low, high, measured = self.estimate.latency_low_s, self.estimate.latency_high_s, self.case.latency_s
        if self.error is None or low is None or high is None or measured is None:
            return None
        return low <= measured <= high


def load_estimator(name: str) -> Estimator:
    """The estimator of ``conf/engine/NAME.yaml``.

    Raises:
        InvalidRequest: there is no such engine, or it is not an estimator.
    """
    engine = make_engine(load_group("engine", name))
    if not isinstance(engine, Estimator):
        raise InvalidRequest("engine", name, "measures and cannot predict", "use analytic, compiled or published")
    return engine


def compare(cases: Sequence[Case], engine: Estimator, engine_config: Mapping[str, Any] | None = None) -> list[Compared]:
    """Estimate every case: in one call or, if the engine's config is ``isolated``, in child processes as ``run`` does.

    Raises:
        InvalidRequest: a limit in the engine's config is invalid.
    """
    answers: list[Estimate | Row] = []
    if engine_config is not None and engine_config.get("isolated"):
        answers += _in_children(cases, engine, engine_config)
    else:
        answers += engine.estimate([case.point for case in cases])
    return [Compared(case, answer) for case, answer in zip(cases, answers, strict=True)]


def _in_children(cases: Sequence[Case], engine: Estimator, engine_config: Mapping[str, Any]) -> list[Row]:
    """One row per case, with a progress bar on stderr if that is a terminal."""
    points = [case.point for case in cases]
    tasks = [
        PointTask(point=point, point_id=point.fingerprint(""), source=engine.source, sweep=None) for point in points
    ]
    rows = []
    with Output("none", len(cases)) as output:
        for row in evaluate(engine_config, tasks, TimingConfig(), engine.environment(points)):
            output.show(row, new=True)
            rows.append(row)
    return rows


def figures_of(errors: Iterable[float]) -> dict[str, float | None]:
    """:class:`ErrorStats` under the keys of the JSON output; every figure is None if there are no errors."""
    stats = error_stats(errors)
    return dict.fromkeys(ERROR_FIGURES) if stats is None else {**stats.to_dict()}


def figures(compared: Sequence[Compared]) -> dict[str, Any]:
    """Error statistics and out-of-memory counts (:func:`oom_counts`) of some rows.

    ``rows`` counts all rows, ``compared`` those with both times and ``unanswered`` those without an estimate.
    ``covered`` is the share of the measured times that lie in the 80% interval of their prediction, None without one.
    """
    errors = [each.error for each in compared if each.error is not None]
    inside = [each.inside for each in compared if each.inside is not None]
    statuses = [("oom" if each.case.oom else "ok", each.estimate.status) for each in compared]
    return {
        **figures_of(errors),
        "rows": len(compared),
        "compared": len(errors),
        "covered": sum(inside) / len(inside) if inside else None,
        **oom_counts(statuses),
        "unanswered": sum(status not in ("ok", "oom") for _, status in statuses),
    }


def grouped(compared: Sequence[Compared]) -> dict[str, dict[str, dict[str, Any]]]:
    """:func:`figures` by each of :data:`GROUPS`: ``{"model": {"gpt-20b": {...}}}``."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for name, key in GROUPS.items():
        ordered = sorted(compared, key=lambda each: each.case.point.batch_size) if name == "batch" else compared
        values = dict.fromkeys(key(each.case) for each in ordered)
        groups[name] = {value: figures([each for each in compared if key(each.case) == value]) for value in values}
    return groups
