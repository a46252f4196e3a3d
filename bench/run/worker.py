"""The child process that evaluates a job's points: reads them on stdin, writes one JSON line a row on a pipe.

Started by :mod:`bench.run.child`. A crash, a hang or an out-of-memory kill ends this process and not the sweep.
"""

import json
import os
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.measure.timing import TimingConfig, measure
from bench.run.extras import extra_of
from bench.run.keys import as_timed, program_id
from bench.run.limits import Limits
from bench.run.load_engine import make_engine
from bench.run.lockstep import Lockstep
from bench.run.make_row import PointTask, estimated, measured, unanswered
from engines.core.engine import Engine, Estimator, Facts, JobProcess, Runner
from engines.core.errors import InvalidRequest, OutOfMemory, ShardbenchError, TimedOut, Unsupported
from engines.core.row import Row


@dataclass(frozen=True, slots=True)
class WorkerInput:
    """What the parent sends: pickled, since both ends are this same program."""

    engine_config: dict[str, Any]
    questions: Sequence[PointTask]
    timing: TimingConfig
    process: JobProcess | None = None


def main(pipe: int) -> None:
    """Evaluate the work that stands on stdin; rows go to the file descriptor ``pipe``."""
    work: WorkerInput = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    Limits.of(work.engine_config).keep_to_cores()
    with os.fdopen(pipe, "w", encoding="utf-8") as out:

        def say(**message: Any) -> None:
            print(json.dumps(message), file=out, flush=True)

        engine = make_engine(work.engine_config)
        if work.process is not None:
            _in_team(engine, work, say)
            return
        for question in work.questions:
            say(started=question.point_id)
            kept = current(engine, question)
            if kept is not None:
                say(kept=kept)
                continue
            row = answer(engine, question, work.timing)
            say(row=row.to_dict())
            if row.status == "failed":
                say(lost=True)  # its devices may be (a CUDA error stays): the next points need a new process
                return


def _in_team(engine: Estimator | Runner, work: WorkerInput, say: Callable[..., None]) -> None:
    """Evaluate process 0's points together with the others; only process 0 has rows."""
    team = engine.join()
    together = Lockstep(team)
    say(joined=team.process.count)
    for question in together.questions(work.questions):
        say(started=question.point_id)
        kept = together.told(current(engine, question) if team.process.index == 0 else None)
        if kept is not None:
            if team.process.index == 0:
                say(kept=kept)
            continue
        row = answer(engine, question, work.timing, together)
        if team.process.index == 0:
            say(row=row.to_dict())
        if not together.in_step:
            say(lost=True)  # the next points need a team of new processes
            return
    team.leave()
    say(dismissed=True)


def current(engine: Engine, question: PointTask) -> int | None:
    """Which of the question's stored rows is of the program that would run now; None where none is."""
    present = _present_program(engine, question) if question.stored else None
    if present is None:
        return None
    return next((number for number, row in enumerate(question.stored) if row.program_id == present), None)


def _present_program(engine: Engine, question: PointTask) -> str | None:
    """What would run now; None where that cannot be told, and the answer will say why."""
    try:
        return program_id(engine, question.point)
    except Exception:
        return None


def answer(
    engine: Estimator | Runner, question: PointTask, timing: TimingConfig, together: Lockstep | None = None
) -> Row:
    """One point's row, whatever happens to it short of the end of the process."""
    try:
        if isinstance(engine, Runner):
            return _measure(engine, question, timing, together)
        return estimated(question, engine.estimate([question.point])[0])
    except OutOfMemory as error:
        return unanswered(question, "oom", str(error), Facts(program_id=_present_program(engine, question)))
    except TimedOut as error:
        return unanswered(question, "timeout", str(error))
    except (Unsupported, InvalidRequest) as error:
        return unanswered(question, "unsupported", str(error))
    except ModuleNotFoundError as error:
        return unanswered(question, "failed", missing_library(question.point.engine, error))
    except Exception as error:  # the sweep goes on, and the row says what happened
        return unanswered(question, "failed", one_line(error))


def answer_all(engine: Estimator, questions: Sequence[PointTask]) -> list[Row]:
    """Every point's row from an estimator, in one call."""
    try:
        estimates = engine.estimate([question.point for question in questions])
    except ModuleNotFoundError as error:
        return [unanswered(each, "failed", missing_library(each.point.engine, error)) for each in questions]
    except Exception as error:
        return [unanswered(each, "failed", one_line(error)) for each in questions]
    return [estimated(question, estimate) for question, estimate in zip(questions, estimates, strict=True)]


def missing_library(engine: str, error: ModuleNotFoundError) -> str:
    """The sentence for an engine whose extra is not installed."""
    extra = extra_of(error.name) if error.name else None
    remedy = f"pip install 'shardbench[{extra}]'" if extra else f"install {error.name}"
    return f"engine={engine}: needs {error.name}, which is not installed; {remedy}"


def one_line(error: BaseException) -> str:
    """An unforeseen exception as one sentence; its class is part of it, since its message alone may say nothing."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ShardbenchError) else f"{type(error).__name__}: {text[:500]}"


def _measure(engine: Runner, question: PointTask, timing: TimingConfig, together: Lockstep | None) -> Row:
    program = together.prepare(engine, question) if together else engine.prepare(question.point)
    try:
        verification = program.verify()
        samples = measure(program, timing, agreed=together.told) if together else measure(program, timing)
        row = measured(question, program, samples, verification, timing)
        row = replace(row, program_id=as_timed(engine, row.program_id))
        return together.signed(row) if together else row
    finally:
        program.close()


def _end_with_parent() -> None:
    # The parent never writes again: the end of stdin is the end of the parent, even by kill -9.
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
