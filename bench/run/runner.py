"""Points → rows: skips stored points, runs the engines, and stores every row as soon as its point ends."""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from bench.rows.store import Store
from bench.run.child import evaluate, evaluate_lockstep
from bench.run.conditions import conditions_of, hold
from bench.run.keys import code_id, point_id
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask, row_without_time
from bench.run.progress import Output
from bench.run.tracking import open_tracker
from bench.run.worker import answer_all, valid_stored_row
from bench.sweep.expand import EngineJob, Options, Request
from engines.core.engine import Estimator
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.point import Point
from engines.core.row import Row


@dataclass(slots=True)
class RunSummary:
    """Number of points by status, and how many of them came from the store."""

    by_status: Counter[str] = field(default_factory=Counter)
    stored: int = 0
    is_follower: bool = False

    @property
    def exit_code(self) -> int:
        """3 if a point failed or timed out, or if no point has a time or is out of memory; else 0.

        A follower (a process other than 0 of a multi-process job) has no points of its own.
        """
        failed = self.by_status["failed"] + self.by_status["timeout"]
        answered = self.by_status["ok"] + self.by_status["oom"]
        return 3 if failed or not (answered or self.is_follower) else 0


def run(requests: Sequence[Request]) -> RunSummary:
    """Evaluate every request (one, or one per job of a multirun) and count the results.

    Raises:
        InvalidRequest: all points are invalid; nothing is run or stored.
        ShardbenchError: the store cannot be read.
    """
    invalid = _invalid_points([point for request in requests for job in request.jobs for point in job.points])
    if any(_is_follower(job) for request in requests for job in request.jobs):
        return _run_follower(requests)
    options = requests[0].options
    store = Store(options.results_dir)
    stored = _by_point(store.load())
    total = sum(len(job.points) for request in requests for job in request.jobs)
    summary = RunSummary()
    all_rows: list[Row] = []
    with ExitStack() as stack:
        output = stack.enter_context(Output(options.print, total))
        tracker = open_tracker({**options.wandb, "results_dir": options.results_dir})
        if tracker is not None:
            stack.callback(tracker.close)
        for request in requests:
            for job in request.jobs:
                for rows, new in _run_job(job, request.options, invalid, stored):
                    if new:
                        store.append(rows)
                    for row in rows:
                        summary.by_status[row.status] += 1
                        summary.stored += not new
                        output.show(row, new=new)
                        if new and tracker is not None:
                            tracker.log_row(row)
                    all_rows += rows
        if tracker is not None and options.sweep_name:
            tracker.log_sweep(options.sweep_name, all_rows, [])
        output.close(summary.stored, options.results_dir)
    return summary


def _invalid_points(points: Sequence[Point]) -> dict[int, InvalidRequest]:
    """id() of each invalid point → its error; raises the first error if all points are invalid."""
    invalid: dict[int, InvalidRequest] = {}
    for point in points:
        try:
            point.check()
        except InvalidRequest as error:
            invalid[id(point)] = error
    if points and len(invalid) == len(points):
        raise invalid[id(points[0])]
    return invalid


def _run_job(
    job: EngineJob, options: Options, invalid: Mapping[int, InvalidRequest], stored: Mapping[str, Sequence[Row]]
) -> Iterator[tuple[list[Row], bool]]:
    """Yield rows as they end, with whether they are new (else from the store)."""
    engine = make_engine(job.engine_config)
    process = engine.process()
    code = code_id(engine)
    conditions = conditions_of(engine, job.engine_config, options.timing)
    environment = {**os.environ, **engine.environment(job.points)}
    to_do: list[PointTask] = []
    for point in job.points:
        task = PointTask(
            point=point,
            point_id=point_id(engine, point),
            source=engine.source,
            sweep=options.sweep_name,
            code_id=code,
            conditions=conditions,
        )
        candidates = stored.get(task.point_id, ()) if options.resume else ()
        candidates = [
            row for row in candidates if _is_reusable(row, options.retry) and hold(row, conditions, environment)
        ]
        same_code = [row for row in candidates if code is not None and row.code_id == code]
        if same_code:
            yield same_code[:1], False
        elif id(point) in invalid:
            yield [row_without_time(task, "unsupported", str(invalid[id(point)]))], True
        else:
            to_do.append(replace(task, stored=[row for row in candidates if row.program_id is not None]))
    if process is not None:
        environment = engine.environment(job.points)  # of all points: followers do not know which are stored
        rows = evaluate_lockstep(job.engine_config, to_do, options.timing, environment, process)
    elif not to_do:
        return
    elif job.engine_config.get("isolated"):
        environment = engine.environment([task.point for task in to_do])
        rows = evaluate(job.engine_config, to_do, options.timing, environment)
    else:
        assert isinstance(engine, Estimator)
        yield from _in_this_process(engine, to_do)
        return
    for row, task in zip(rows, to_do, strict=True):
        yield [row], all(row is not each for each in task.stored)


def _in_this_process(engine: Estimator, tasks: Sequence[PointTask]) -> Iterator[tuple[list[Row], bool]]:
    """Yield stored rows that are still valid one by one, then the rows of all other tasks in one list."""
    left = []
    for task in tasks:
        stored = valid_stored_row(engine, task)
        if stored is None:
            left.append(task)
        else:
            yield [task.stored[stored]], False
    if left:
        yield answer_all(engine, left), True


def _by_point(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """point_id → its rows, those with status ok first, and the newest first within each status group."""
    found: dict[str, list[Row]] = {}
    for row in reversed(rows):
        found.setdefault(row.point_id, []).append(row)
    for each in found.values():
        each.sort(key=lambda row: row.status != "ok")
    return found


def _is_reusable(row: Row, retry: Sequence[str]) -> bool:
    """Whether a stored row may stand for its point as far as ``retry`` goes."""
    if "invalid" in retry and row.status == "ok" and not row.valid:
        return False
    return row.status not in retry


def _is_follower(job: EngineJob) -> bool:
    """Whether this is a process other than 0 of the job: it follows process 0 and writes no rows."""
    process = make_engine(job.engine_config).process()
    return process is not None and process.index > 0


def _run_follower(requests: Sequence[Request]) -> RunSummary:
    """Take part in every multi-process job; single-process jobs are left to process 0."""
    summary = RunSummary(is_follower=True)
    announced = False
    try:
        for request in requests:
            for job in request.jobs:
                engine = make_engine(job.engine_config)
                process = engine.process()
                if process is None:
                    continue
                if not announced:
                    print(
                        f"process {process.index} of {process.count}: follows process 0, which writes the rows",
                        file=sys.stderr,
                    )
                    announced = True
                environment = engine.environment(job.points)
                list(evaluate_lockstep(job.engine_config, [], request.options.timing, environment, process))
    except ShardbenchError as error:
        print(f"shardbench: {error}", file=sys.stderr)
        summary.by_status["failed"] += 1
    return summary
