"""The child process that evaluates a job's points: reads tasks from stdin, writes one JSON message per line to a pipe.

Started by :mod:`bench.run.child`. A crash, a hang or an out-of-memory kill ends this process and not the sweep.

Messages: ``asked`` (the point_id of the next task, which the parent answers with :data:`GO`, :data:`PASS` or
:data:`WAIT`), ``started`` (it goes on), ``passed`` (it does not), ``row`` (its new row), ``stored_index`` (its stored
row is still valid), ``restart`` (the remaining tasks need a new process), and in a team ``joined``, ``waiting`` (the
point is somebody else's as yet; every process of the team says so, and none is taken for hung) and ``finished``.
"""

import json
import os
import pickle
import queue
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.measure.background import between, snapshot
from bench.measure.timing import TimingConfig, measure
from bench.run.extras import extra_of
from bench.run.keys import as_timed, present_program_ids, program_id
from bench.run.limits import Limits
from bench.run.load_engine import Answering, make_engine
from bench.run.lockstep import Lockstep
from bench.run.make_row import PointTask, estimated, row_without_time, with_energy
from bench.run.measured_row import measured
from engines.core.engine import Engine, Estimator, Facts, JobProcess, Runner
from engines.core.errors import InvalidRequest, OutOfMemory, ShardbenchError, TimedOut, Unsupported
from engines.core.load_test import LoadTester
from engines.core.row import Row
from engines.host.nvml import energy_meter
from engines.host.parent import end_at_end_of_stdin

GO: Final = b"g"
PASS: Final = b"p"
WAIT: Final = b"w"
"""What the parent says of a task: it is this worker's, somebody else works on it, or ask again."""


@dataclass(frozen=True, slots=True)
class WorkerInput:
    """The parent's message, pickled: both ends run the same code."""

    engine_config: dict[str, Any]
    tasks: Sequence[PointTask]
    timing: TimingConfig
    process: JobProcess | None = None
    cores: Sequence[int] | None = None


def main(pipe: int) -> None:
    """Evaluate the tasks on stdin; messages go to the file descriptor ``pipe``."""
    work: WorkerInput = pickle.load(sys.stdin.buffer)
    answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    end_at_end_of_stdin(answers.put)
    _leave_signals_to_parent()
    Limits.of(work.engine_config).set_affinity(work.cores)
    with os.fdopen(pipe, "w", encoding="utf-8") as out:

        def send(**message: Any) -> None:
            print(json.dumps(message), file=out, flush=True)

        def may_start(task: PointTask) -> bytes:
            send(asked=task.point_id)
            return answers.get()

        engine = make_engine(work.engine_config)
        if work.process is not None:
            _evaluate_in_team(engine, work, send, may_start)
            return
        for task in work.tasks:
            if may_start(task) != GO:
                send(passed=task.point_id)
                continue
            send(started=task.point_id)
            stored = valid_stored_row(engine, task)
            if stored is not None:
                send(stored_index=stored)
                continue
            row = answer(engine, task, work.timing)
            send(row=row.to_dict())
            if row.status == "failed":
                send(restart=True)  # a CUDA error, for example, makes the device unusable for this process
                return


def _leave_signals_to_parent() -> None:
    """A batch system sends them to all processes of a job; the parent decides whether the present point goes on.

    A handler that does nothing, since programs that this process starts would inherit that signals are ignored.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)


def _evaluate_in_team(
    engine: Answering, work: WorkerInput, send: Callable[..., None], may_start: Callable[[PointTask], bytes]
) -> None:
    """Evaluate process 0's tasks in lockstep with the other processes; only process 0 sends rows."""
    team = engine.join()
    lockstep = Lockstep(team)
    send(joined=team.process.count)
    for task in lockstep.tasks(work.tasks):
        while (said := lockstep.broadcast(may_start(task) if team.process.index == 0 else None)) == WAIT:
            send(waiting=task.point_id)
        if said != GO:
            send(passed=task.point_id)
            continue
        send(started=task.point_id)
        stored = lockstep.broadcast(valid_stored_row(engine, task) if team.process.index == 0 else None)
        if stored is not None:
            if team.process.index == 0:
                send(stored_index=stored)
            continue
        row = answer(engine, task, work.timing, lockstep)
        if team.process.index == 0:
            send(row=row.to_dict())
        if not lockstep.in_step:
            send(restart=True)
            return
    team.leave()
    send(finished=True)


def valid_stored_row(engine: Engine, task: PointTask) -> int | None:
    """Index of the task's stored row whose program is the one that would run now; None if there is none."""
    if not task.stored:
        return None
    try:
        now = present_program_ids(engine, task.point, task.stored)
    except Exception:
        return None  # evaluating the task reports it
    pairs = enumerate(zip(task.stored, now, strict=True))
    return next((index for index, (row, current) in pairs if current is not None and row.program_id == current), None)


def _current_program_id(engine: Engine, task: PointTask) -> str | None:
    """The ``program_id`` that would run now; None on any error, which evaluating the task then reports."""
    try:
        return program_id(engine, task.point)
    except Exception:
        return None


def answer(engine: Answering, task: PointTask, timing: TimingConfig, lockstep: Lockstep | None = None) -> Row:
    """One point's row, with what it took; an exception becomes a row with its status."""
    begin = time.perf_counter()
    row = _answered(engine, task, timing, lockstep)
    return replace(row, took_s=time.perf_counter() - begin)


def _answered(engine: Answering, task: PointTask, timing: TimingConfig, lockstep: Lockstep | None) -> Row:
    try:
        if isinstance(engine, Runner):
            return _measure(engine, task, timing, lockstep)
        if isinstance(engine, LoadTester):
            from bench.run.under_load import answer_under_load  # and all formats that it reads

            return answer_under_load(engine, task)
        return estimated(task, engine.estimate([task.point])[0])
    except OutOfMemory as error:
        return row_without_time(task, "oom", str(error), Facts(program_id=_current_program_id(engine, task)))
    except TimedOut as error:
        return row_without_time(task, "timeout", str(error))
    except (Unsupported, InvalidRequest) as error:
        return row_without_time(task, "unsupported", str(error))
    except ModuleNotFoundError as error:
        return row_without_time(task, "failed", missing_library(task.point.engine, error))
    except Exception as error:  # the sweep continues, and the row has the error
        return row_without_time(task, "failed", one_line(error))


def answer_all(engine: Estimator, tasks: Sequence[PointTask]) -> list[Row]:
    """The rows of all tasks from one call of an estimator."""
    try:
        estimates = engine.estimate([task.point for task in tasks])
    except ModuleNotFoundError as error:
        return [row_without_time(each, "failed", missing_library(each.point.engine, error)) for each in tasks]
    except Exception as error:
        return [row_without_time(each, "failed", one_line(error)) for each in tasks]
    return [estimated(task, estimate) for task, estimate in zip(tasks, estimates, strict=True)]


def missing_library(engine: str, error: ModuleNotFoundError) -> str:
    """The sentence for an engine whose extra is not installed."""
    extra = extra_of(error.name) if error.name else None
    remedy = f"pip install 'shardbench[{extra}]'" if extra else f"install {error.name}"
    return f"engine={engine}: needs {error.name}, which is not installed; {remedy}"


def one_line(error: BaseException) -> str:
    """An unexpected exception as one line, with its class, because the message alone may be empty."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ShardbenchError) else f"{type(error).__name__}: {text[:500]}"


def _measure(engine: Runner, task: PointTask, timing: TimingConfig, lockstep: Lockstep | None) -> Row:
    program = lockstep.prepare(engine, task) if lockstep else engine.prepare(task.point)
    try:
        verification = program.verify()
        # Of a job of several processes, nobody here sees the other machines' devices.
        on_gpus = task.point.chip.kind == "gpu"
        meter = energy_meter(task.point.num_chips) if on_gpus and lockstep is None else None
        before = snapshot(gpus=on_gpus)
        with nullcontext() if meter is None else closing(meter):
            joules = None if meter is None else meter.joules
            samples = measure(program, timing, agree=lockstep.broadcast if lockstep else lambda own: own, joules=joules)
        background = between(before, snapshot(gpus=on_gpus))
        row = measured(task, program, samples, verification, timing, background)
        if meter is not None:
            row = with_energy(row, row.latency_s, samples.mean_power_w, meter.source)
        row = replace(row, program_id=as_timed(engine, row.program_id))
        return lockstep.with_hosts(row) if lockstep else row
    finally:
        program.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
