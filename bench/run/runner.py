"""Points → rows: skips stored points, runs the engines, and stores every row as soon as its point ends."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.rows.at_read import with_dollars
from bench.rows.probe import check_writable, future_part, overwriting_storage
from bench.rows.select import Selection
from bench.rows.store import Store
from bench.run.child import evaluate_lockstep
from bench.run.durations import Durations
from bench.run.grace import Grace
from bench.run.jobs import run_jobs
from bench.run.load_engine import make_engine
from bench.run.progress import Output
from bench.run.resume import JobPlan, plan_job
from bench.run.save import Saver
from bench.run.schedule import InOrder
from bench.run.sharing import Sharing
from bench.run.time_left import TimeLeft
from bench.run.tracking import open_tracker
from bench.storage.place import folder_beside
from bench.sweep.expand import EngineJob, Request
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
    stores = {each: Store(each) for each in dict.fromkeys(request.options.results_dir for request in requests)}
    durations = Durations()
    plans = {
        each: _planned(
            store, [request for request in requests if request.options.results_dir == each], invalid, durations
        )
        for each, store in stores.items()
    }
    left = TimeLeft(durations)
    order = InOrder()
    for plan in (plan for here in plans.values() for plan in here):
        plan.schedule(durations)
        left.expect(plan)
        order.add(plan.job.engine, plan.point_ids)
    with Output(requests[0].options.print, total, order, left) as output:
        for results_dir, here in plans.items():
            _run_into(stores[results_dir], here, output, summary)
        output.close(summary.stored, ", ".join(stores))
    summary.rows = order.sorted(summary.rows)
    return summary


def _planned(
    store: Store, requests: Sequence[Request], invalid: Mapping[int, InvalidRequest], durations: Durations
) -> list[JobPlan]:
    """What is left to do of requests whose rows go to the same store, which can take them."""
    stored = Selection(store)
    durations.know(stored)
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
        tracker = open_tracker({**options.wandb, "results_dir": folder_beside(options.results_dir)})
        if tracker is not None:
            stack.callback(tracker.close)
        grace = stack.enter_context(Grace(options.grace_s))
        sharing = Sharing(store, grace)
        stack.callback(sharing.close)
        before = summary.unsaved
        left = sum(len(plan.job.points) for plan in plans)
        for plan, found, new in run_jobs(plans, sharing):
            rows = saver.save(grace.kept(found)) if new else found
            if before + saver.unsaved > summary.unsaved:
                sharing.abandon(rows)
            elif new:
                sharing.settle(rows)
            sharing.release(found, stored=rows if new else ())
            summary.unsaved = before + saver.unsaved
            for row in rows:
                summary.by_status[row.status] += 1
                summary.stored += not new
            rows = [with_dollars(row, plan.options.prices) for row in rows]
            for row in rows:
                output.show(row, new=new)
                if new and tracker is not None:
                    tracker.log_row(row)
            summary.rows += rows
            left -= len(found)
            if plan.options.sweep_name:
                by_sweep.setdefault(plan.options.sweep_name, []).extend(rows)
            if plan.process is None and (left or len(rows) < len(found)):
                grace.check()
        if left:  # a team has ended together
            grace.check()
        if tracker is not None:
            for sweep_name, rows in by_sweep.items():
                tracker.log_sweep(sweep_name, rows)


def _check_store(store: Store, new_rows: int) -> None:
    """Before anything is measured: raise if the store cannot take the rows, and say if one of its clocks is wrong."""
    if new_rows:
        check_writable(store, new_rows)
        for warning in (future_part(store), overwriting_storage(store)):
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


def _is_follower(job: EngineJob) -> bool:
    """Whether this is a process other than 0 of the job: it follows process 0 and writes no rows."""
    process = make_engine(job.engine_config).process()
    return process is not None and process.index > 0


def _run_follower(requests: Sequence[Request]) -> RunSummary:
    """Take part in every multi-process job; single-process jobs are left to process 0."""
    summary = RunSummary(is_follower=True)
    announced = False
    grace = Grace(max(request.options.grace_s for request in requests))
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
                timing = request.options.timing
                with grace:
                    grace.begin(job.engine)
                    list(
                        evaluate_lockstep(
                            job.engine_config, [], timing, environment, process, goes_on=lambda: not grace.is_ending
                        )
                    )
                    grace.end(job.engine)
                    grace.check()
    except ShardbenchError as error:
        print(f"shardbench: {error}", file=sys.stderr)
        summary.by_status["failed"] += 1
    return summary
