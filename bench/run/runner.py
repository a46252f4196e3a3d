"""Points → rows: leaves out what is stored, asks the engines, stores every row the moment its point ends."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from bench.rows.store import Store
from bench.run.child import evaluate, evaluate_together
from bench.run.environment import read_environment
from bench.run.keys import code_id, point_id
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask, unanswered
from bench.run.progress import Output
from bench.run.tracking import open_tracker
from bench.run.worker import answer_all, current
from bench.sweep.expand import EngineJob, Options, Request
from engines.core.engine import Estimator
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.point import Point
from engines.core.row import Row


@dataclass(slots=True)
class Tally:
    """How the points of a command ended: by status, and how many came from the store."""

    by_status: Counter[str] = field(default_factory=Counter)
    stored: int = 0
    followed: bool = False

    @property
    def exit_code(self) -> int:
        """3 where a point failed, ran out of time, or where no point at all had an answer; else 0.

        A process that ``followed`` another has no points of its own.
        """
        failed = self.by_status["failed"] + self.by_status["timeout"]
        answered = self.by_status["ok"] + self.by_status["oom"]
        return 3 if failed or not (answered or self.followed) else 0


def run(requests: Sequence[Request]) -> Tally:
    """Evaluate every request (one, or one a job of a multirun) and return how it went.

    Raises:
        InvalidRequest: not one of the points can be, so that nothing is run or stored.
        ShardbenchError: the store cannot be read.
    """
    wrong = _refused([point for request in requests for job in request.jobs for point in job.points])
    if any(_follows(job) for request in requests for job in request.jobs):
        return _follow(requests)
    options = requests[0].options
    store = Store(options.results_dir)
    stored = _by_point(store.load())
    total = sum(len(job.points) for request in requests for job in request.jobs)
    tally = Tally()
    kept: list[Row] = []
    with ExitStack() as stack:
        output = stack.enter_context(Output(options.print, total))
        tracker = open_tracker({**options.wandb, "results_dir": options.results_dir})
        if tracker is not None:
            stack.callback(tracker.close)
        for request in requests:
            for job in request.jobs:
                for rows, new in _job(job, request.options, wrong, stored):
                    if new:
                        store.append(rows)
                    for row in rows:
                        tally.by_status[row.status] += 1
                        tally.stored += not new
                        output.show(row, new=new)
                        if new and tracker is not None:
                            tracker.log_row(row)
                    kept += rows
        if tracker is not None and options.sweep_name:
            tracker.log_sweep(options.sweep_name, kept, [])
        output.close(tally.stored, options.results_dir)
    return tally


def _refused(points: Sequence[Point]) -> dict[int, InvalidRequest]:
    """What is wrong with each point that cannot be, by its id(); raises it where no point can be."""
    wrong: dict[int, InvalidRequest] = {}
    for point in points:
        try:
            point.check()
        except InvalidRequest as error:
            wrong[id(point)] = error
    if points and len(wrong) == len(points):
        raise wrong[id(points[0])]
    return wrong


def _job(
    job: EngineJob, options: Options, wrong: Mapping[int, InvalidRequest], stored: Mapping[str, Sequence[Row]]
) -> Iterator[tuple[list[Row], bool]]:
    """Rows that ended together, and whether they are new (else from the store)."""
    engine = make_engine(job.engine_config)
    process = engine.process()
    code = code_id(engine)
    to_do: list[PointTask] = []
    for point in job.points:
        question = PointTask(
            point=point,
            point_id=point_id(engine, point),
            source=engine.source,
            sweep=options.sweep_name,
            code_id=code,
        )
        before = stored.get(question.point_id, ()) if options.resume else ()
        before = [row for row in before if _finished(row, options.retry)]
        same_code = [row for row in before if code is not None and row.code_id == code]
        if same_code:
            yield same_code[:1], False
        elif id(point) in wrong:
            yield [unanswered(question, "unsupported", str(wrong[id(point)]))], True
        else:
            to_do.append(replace(question, stored=[row for row in before if row.program_id is not None]))
    if process is not None:
        environment = engine.environment(job.points)  # of all, since other processes know no better
        rows = evaluate_together(job.engine_config, to_do, options.timing, environment, process)
    elif not to_do:
        return
    elif job.engine_config.get("isolated"):
        environment = engine.environment([question.point for question in to_do])
        rows = evaluate(job.engine_config, to_do, options.timing, environment)
    else:
        assert isinstance(engine, Estimator)
        yield from _in_this_process(engine, to_do)
        return
    for row, question in zip(rows, to_do, strict=True):
        yield [row], all(row is not each for each in question.stored)


def _in_this_process(engine: Estimator, questions: Sequence[PointTask]) -> Iterator[tuple[list[Row], bool]]:
    """What is still answered by a stored row, one by one, and the answers to the rest together."""
    left = []
    for question in questions:
        kept = current(engine, question)
        if kept is None:
            left.append(question)
        else:
            yield [question.stored[kept]], False
    if left:
        yield answer_all(engine, left), True


def _by_point(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """point_id → its rows, those with an answer first, the newest first of each."""
    found: dict[str, list[Row]] = {}
    for row in reversed(rows):
        found.setdefault(row.point_id, []).append(row)
    for each in found.values():
        each.sort(key=lambda row: row.status != "ok")
    return found


def _finished(row: Row, retry: Sequence[str]) -> bool:
    """Whether a stored row answers the point here and now: a measurement of another host does not."""
    if row.source == "measured" and row.host != read_environment().host:
        return False
    if "invalid" in retry and row.status == "ok" and not row.valid:
        return False
    return row.status not in retry


def _follows(job: EngineJob) -> bool:
    """Whether this process does as process 0 of the job says, and writes nothing."""
    process = make_engine(job.engine_config).process()
    return process is not None and process.index > 0


def _follow(requests: Sequence[Request]) -> Tally:
    """Take part in every job that has several processes; what one process can answer is left to process 0."""
    tally = Tally(followed=True)
    told = False
    try:
        for request in requests:
            for job in request.jobs:
                engine = make_engine(job.engine_config)
                process = engine.process()
                if process is None:
                    continue
                if not told:
                    print(
                        f"process {process.index} of {process.count}: follows process 0, which has the rows",
                        file=sys.stderr,
                    )
                    told = True
                environment = engine.environment(job.points)
                list(evaluate_together(job.engine_config, [], request.options.timing, environment, process))
    except ShardbenchError as error:
        print(f"shardbench: {error}", file=sys.stderr)
        tally.by_status["failed"] += 1
    return tally
