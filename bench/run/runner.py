"""Points → rows: skips stored points, runs the engines, and stores every row as soon as its point ends."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.rows.probe import check_writable, future_part
from bench.rows.store import Store
from bench.run.child import evaluate, evaluate_lockstep
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask
from bench.run.progress import Output
from bench.run.resume import JobPlan, by_point, plan_job
from bench.run.save import Saver
from bench.run.tracking import open_tracker
from bench.run.worker import answer_all, valid_stored_row
from bench.sweep.expand import EngineJob, Request
from engines.core.engine import Estimator
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.point import Point
from engines.core.row import Row


@dataclass(slots=True)
class RunSummary:
    """Number of points by status, how many came from the store, how many could not be stored, and all their rows."""

    by_status: Counter[str] = field(default_factory=Counter)
    stored: int = 0
    unsaved: int = 0
    rows: list[Row] = field(default_factory=list)
    is_follower: bool = False

    @property
    def exit_code(self) -> int:
        """3 if a point failed, timed out or was not stored, or if no point has a time or is out of memory; else 0.

        A follower (a process other than 0 of a multi-process job) has no points of its own.
        """
        failed = self.by_status["failed"] + self.by_status["timeout"]
        answered = self.by_status["ok"] + self.by_status["oom"]
        return 3 if failed or self.unsaved or not (answered or self.is_follower) else 0


def run(requests: Sequence[Request]) -> RunSummary:
    """Evaluate every request (one, or one per job of a multirun) and count the results.

    Raises:
        InvalidRequest: all points are invalid; nothing is run or stored.
        ShardbenchError: the store cannot be read, or not written though points are left to run; nothing is run.
    """
    invalid = _invalid_points([point for request in requests for job in request.jobs for point in job.points])
    if any(_is_follower(job) for request in requests for job in request.jobs):
        return _run_follower(requests)
    summary = RunSummary()
    total = sum(len(job.points) for request in requests for job in request.jobs)
    stores = dict.fromkeys(request.options.results_dir for request in requests)
    plans = {
        each: _planned(Store(each), [request for request in requests if request.options.results_dir == each], invalid)
        for each in stores
    }
    with Output(requests[0].options.print, total) as output:
        for results_dir, here in plans.items():
            _run_into(Store(results_dir), here, output, summary)
        output.close(summary.stored, ", ".join(stores))
    return summary


def _planned(store: Store, requests: Sequence[Request], invalid: Mapping[int, InvalidRequest]) -> list[JobPlan]:
    """What is left to do of requests whose rows go to the same store, which can take them."""
    stored = by_point(store.load())
    plans = [plan_job(job, request.options, invalid, stored) for request in requests for job in request.jobs]
    _check_store(store, sum(plan.new_rows for plan in plans))
    return plans


def _run_into(store: Store, plans: Sequence[JobPlan], output: Output, summary: RunSummary) -> None:
    """Evaluate plans whose rows go to the same store."""
    options = plans[0].options
    by_sweep: dict[str, list[Row]] = {}
    saver = Saver(store, stdout_taken=options.print == "json")
    with ExitStack() as stack:
        stack.callback(saver.close)
        tracker = open_tracker({**options.wandb, "results_dir": options.results_dir})
        if tracker is not None:
            stack.callback(tracker.close)
        before = summary.unsaved
        for plan in plans:
            for found, new in _run_job(plan):
                rows = saver.save(found) if new else found
                summary.unsaved = before + saver.unsaved
                for row in rows:
                    summary.by_status[row.status] += 1
                    summary.stored += not new
                    output.show(row, new=new)
                    if new and tracker is not None:
                        tracker.log_row(row)
                summary.rows += rows
                if plan.options.sweep_name:
                    by_sweep.setdefault(plan.options.sweep_name, []).extend(rows)
        if tracker is not None:
            for sweep_name, rows in by_sweep.items():
                tracker.log_sweep(sweep_name, rows)


def _check_store(store: Store, new_rows: int) -> None:
    """Before anything is measured: raise if the store cannot take the rows, and say if one of its clocks is wrong."""
    if new_rows:
        check_writable(store, new_rows)
        warning = future_part(store)
        if warning is not None:
            print(f"shardbench: {warning}", file=sys.stderr)


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


def _run_job(plan: JobPlan) -> Iterator[tuple[list[Row], bool]]:
    """Yield rows as they end, with whether they are new (else from the store)."""
    for row, new in plan.known:
        yield [row], new
    engine, to_do, config, timing = plan.engine, plan.to_do, plan.job.engine_config, plan.options.timing
    if plan.process is not None:
        environment = engine.environment(plan.job.points)  # of all points: followers do not know which are stored
        rows = evaluate_lockstep(config, to_do, timing, environment, plan.process)
    elif not to_do:
        return
    elif config.get("isolated"):
        rows = evaluate(config, to_do, timing, engine.environment([task.point for task in to_do]))
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
