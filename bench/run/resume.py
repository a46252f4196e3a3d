"""Which points of a job are answered by stored rows, which are refused, and which are left to run."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.rows.select import Selection
from bench.run.conditions import conditions_of, hold
from bench.run.durations import Durations
from bench.run.environment import cpu_affinity
from bench.run.keys import code_id, code_id_of, point_id
from bench.run.limits import Limits
from bench.run.load_engine import Answering, make_engine
from bench.run.make_row import PointTask, row_without_time
from bench.run.repeats import check_repeat
from bench.run.schedule import Expected, scheduled
from bench.sweep.expand import EngineJob
from bench.sweep.options import Options
from engines.core.engine import Estimator, JobProcess
from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.core.row import Row


@dataclass(slots=True)
class JobPlan:
    """A job before it runs.

    ``known``: stored rows that answer points. ``refused``: points that nothing can run, and the rows that say so.
    ``to_do``: the other points, each with the stored rows that stand for it if its program is still the same.
    ``point_ids`` are those of all points, in their order; ``expected`` says of those to do what they will take.
    """

    job: EngineJob
    options: Options
    engine: Answering
    process: JobProcess | None
    known: list[Row] = field(default_factory=list)
    refused: list[tuple[PointTask, Row]] = field(default_factory=list)
    to_do: list[PointTask] = field(default_factory=list)
    conditions: Mapping[str, object] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    point_ids: list[str] = field(default_factory=list)
    expected: Mapping[str, Expected] = field(default_factory=dict)

    @property
    def answers_here(self) -> bool:
        """Whether this process answers all points in one call of an estimator, which takes no time worth a plan."""
        isolated = self.process is not None or self.job.engine_config.get("isolated")
        return not isolated and isinstance(self.engine, Estimator)

    @property
    def is_repeated(self) -> bool:
        """Whether several processes measure each point."""
        return self.options.repeat > 1 and self.engine.source == "measured"

    @property
    def at_once(self) -> int:
        """The most points at once: with ``max_parallel``, those that estimate, or have cores of their own."""
        config = self.job.engine_config
        alone = self.process is not None or not config.get("isolated")
        if self.engine.source != "measured":
            return 1 if alone else self.options.max_parallel
        cores = Limits.of(config).cores
        on_cpu = all(point.chip.kind == "cpu" for point in self.job.points)
        if alone or cores is None or not on_cpu:
            return 1
        return max(1, min(self.options.max_parallel, len(cpu_affinity()) // cores))

    def schedule(self, durations: Durations) -> None:
        """Put what is to do in the order in which to start it."""
        if not self.answers_here:
            self.to_do, self.expected = scheduled(self.to_do, self.engine, self.options.timing, durations)

    @property
    def new_rows(self) -> int:
        """The most rows that the job may store."""
        return len(self.to_do) + len(self.refused)

    def candidates(self, rows: Sequence[Row]) -> list[Row]:
        """Those of a point's stored rows that stand for it as far as can be told without its program."""
        return [row for row in rows if _wanted(row, self.options) and self.holds(row)]

    def holds(self, row: Row) -> bool:
        """Whether a stored row was made under the conditions that are here now."""
        return hold(row, self.conditions, self.environment, other_hosts=self.options.other_hosts)


def plan_job(job: EngineJob, options: Options, invalid: Mapping[int, InvalidRequest], stored: Selection) -> JobPlan:
    """Sort the points of a job.

    A stored row stands for a point without asking for its program if the same source would answer it under the same
    conditions. ``invalid``: id() of each invalid point → its error. ``stored``: the rows of the store.

    Raises:
        InvalidRequest: a setting or a limit of the engine is invalid.
    """
    if job.engine_config.get("isolated"):
        Limits.of(job.engine_config)
    engine = make_engine(job.engine_config)
    code = code_id(engine)
    process = engine.process()
    check_repeat(options.repeat, engine, process, job.engine_config.get("isolated"))
    conditions = conditions_of(engine, job.engine_config, options.timing, options.repeat, options.order)
    environment = {**os.environ, **engine.environment(job.points)}
    plan = JobPlan(job, options, engine, process, conditions=conditions, environment=environment)
    tasks = [_task(engine, point, options, code, conditions) for point in job.points]
    plan.point_ids = [task.point_id for task in tasks]
    rows = by_point(stored.of_points(plan.point_ids)) if options.resume else {}
    for task in tasks:
        candidates = plan.candidates(rows.get(task.point_id, ()))
        known = answer_of(task, candidates)
        if known is not None:
            plan.known.append(known)
        elif id(task.point) in invalid:
            plan.refused.append((task, row_without_time(task, "unsupported", str(invalid[id(task.point)]))))
        else:
            plan.to_do.append(replace(task, stored=[row for row in candidates if row.program_id is not None]))
    return plan


def answer_of(task: PointTask, candidates: Sequence[Row]) -> Row | None:
    """The first of the candidates that the task's code made, which needs no further look at its program."""
    return next((row for row in candidates if task.code_id is not None and row.code_id == task.code_id), None)


def by_point(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """point_id → its rows, the best first: a valid one, then one with status ok, then others; the newest of each.

    ``rows`` come oldest first.
    """
    found: dict[str, list[Row]] = {}
    for row in reversed(rows):
        found.setdefault(row.point_id, []).append(row)
    for each in found.values():
        each.sort(key=lambda row: (row.status != "ok", not row.valid))
    return found


def _task(
    engine: Answering,
    point: Point,
    options: Options,
    code: str | None,
    conditions: Mapping[str, object] | None,
) -> PointTask:
    return PointTask(
        point=point,
        point_id=point_id(engine, point),
        source=engine.source,
        sweep=options.sweep_name,
        code_id=code_id_of(engine, code, point),
        conditions=conditions,
    )


def _wanted(row: Row, options: Options) -> bool:
    """Whether a stored row may stand for its point as far as ``retry`` goes: it is about rows of before the command."""
    if options.asked_at is not None and row.created_at >= options.asked_at:
        return True
    if "invalid" in options.retry and row.status == "ok" and not row.valid:
        return False
    return row.status not in options.retry
