"""Points → rows: leaves out what is stored, asks the engines, stores every row the moment its point ends."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.rows.store import Store
from bench.run.child import evaluate, evaluate_together
from bench.run.environment import read_environment
from bench.run.fingerprint import code_fingerprint
from bench.run.load_engine import environment_of, make_engine, place_of
from bench.run.make_row import PointTask, unanswered
from bench.run.progress import Output
from bench.run.tracking import open_tracker
from bench.run.worker import answer_all
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
    stored = store.latest()
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
    job: EngineJob, options: Options, wrong: Mapping[int, InvalidRequest], stored: Mapping[str, Row]
) -> Iterator[tuple[list[Row], bool]]:
    """Rows that ended together, and whether they are new (else from the store)."""
    engine = make_engine(job.engine_config)
    place = place_of(engine)
    code = code_fingerprint(engine)
    to_do: list[PointTask] = []
    for point in job.points:
        question = PointTask(
            point=point, point_id=point.fingerprint(code), source=engine.source, sweep=options.sweep_name
        )
        before = stored.get(question.point_id)
        if options.resume and before is not None and _finished(before, options.retry):
            yield [before], False
        elif id(point) in wrong:
            yield [unanswered(question, "unsupported", str(wrong[id(point)]))], True
        else:
            to_do.append(question)
    if place is not None:
        environment = environment_of(engine, job.points)  # of all, since other processes know no better
        for row in evaluate_together(job.engine_config, to_do, options.timing, environment, place):
            yield [row], True
    elif not to_do:
        return
    elif job.engine_config.get("isolated"):
        environment = environment_of(engine, [question.point for question in to_do])
        for row in evaluate(job.engine_config, to_do, options.timing, environment):
            yield [row], True
    else:
        assert isinstance(engine, Estimator)
        yield answer_all(engine, to_do), True


def _finished(row: Row, retry: Sequence[str]) -> bool:
    """Whether a stored row answers the point here and now: a measurement of another host does not."""
    if row.source == "measured" and row.host != read_environment().host:
        return False
    if "invalid" in retry and row.status == "ok" and not row.valid:
        return False
    return row.status not in retry


def _follows(job: EngineJob) -> bool:
    """Whether this process does as process 0 of the job says, and writes nothing."""
    place = place_of(make_engine(job.engine_config))
    return place is not None and place.process > 0


def _follow(requests: Sequence[Request]) -> Tally:
    """Take part in every job that has several processes; what one process can answer is left to process 0."""
    tally = Tally(followed=True)
    told = False
    try:
        for request in requests:
            for job in request.jobs:
                engine = make_engine(job.engine_config)
                place = place_of(engine)
                if place is None:
                    continue
                if not told:
                    print(
                        f"process {place.process} of {place.count}: follows process 0, which has the rows",
                        file=sys.stderr,
                    )
                    told = True
                environment = environment_of(engine, job.points)
                list(evaluate_together(job.engine_config, [], request.options.timing, environment, place))
    except ShardbenchError as error:
        print(f"shardbench: {error}", file=sys.stderr)
        tally.by_status["failed"] += 1
    return tally
