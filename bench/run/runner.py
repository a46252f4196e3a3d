"""Points → rows: skips stored points, runs the engines, and stores every row as soon as its point ends."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from bench.rows.store import Store
from bench.run.child import evaluate, evaluate_lockstep
from bench.run.environment import read_environment
from bench.run.keys import code_id, point_id
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask, row_without_time
from bench.run.progress import Output
from bench.run.tracking import open_tracker
from bench.run.worker import answer_all, valid_stored_row
from bench.sweep.expand import EngineJob, Request
from bench.sweep.options import Options
from engines.core.engine import Estimator
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.point import Point
from engines.core.row import Row


@dataclass(slots=True)
class RunSummary:
    """Number of points by status, how many of them came from the store, and their rows."""

    by_status: Counter[str] = field(default_factory=Counter)
    stored: int = 0
    rows: list[Row] = field(default_factory=list)
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
    summary = RunSummary()
    total = sum(len(job.points) for request in requests for job in request.jobs)
    stores = list(dict.fromkeys(request.options.results_dir for request in requests))
    with Output(requests[0].options.print, total) as output:
        for results_dir in stores:
            there = [request for request in requests if request.options.results_dir == results_dir]
            _run_into(Store(results_dir), there, invalid, output, summary)
        output.close(summary.stored, ", ".join(stores))
    return summary


def _run_into(
    store: Store,
    requests: Sequence[Request],
    invalid: Mapping[int, InvalidRequest],
    output: Output,
    summary: RunSummary,
) -> None:
    """Evaluate requests whose rows go to the same store."""
    stored = _by_point(store.load())
    options = requests[0].options
    by_sweep: dict[str, list[Row]] = {}
    with ExitStack() as stack:
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
                    summary.rows += rows
                    if request.options.sweep_name:
                        by_sweep.setdefault(request.options.sweep_name, []).extend(rows)
        if tracker is not None:
            for sweep_name, rows in by_sweep.items():
                tracker.log_sweep(sweep_name, rows, [])


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
    to_do: list[PointTask] = []
    for point in job.points:
        task = PointTask(
            point=point,
            point_id=point_id(engine, point),
            source=engine.source,
            sweep=options.sweep_name,
            code_id=code,
        )
        candidates = stored.get(task.point_id, ()) if options.resume else ()
        candidates = [row for row in candidates if _is_reusable(row, options.retry)]
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
    """Whether a stored row may stand for its point: not to be retried, and not measured on another host."""
    if row.source == "measured" and row.host != read_environment().host:
        return False
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
