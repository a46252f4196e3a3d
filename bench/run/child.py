"""Evaluates a job's points in a child process, so that a crash, a hang or an out-of-memory kill costs one point."""

import contextlib
import json
import math
import os
import pickle
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Final

from bench.measure.timing import TimingConfig
from bench.run.limits import Limits
from bench.run.make_row import PointTask, row_without_time
from bench.run.worker import GO, PASS, WAIT, WorkerInput
from engines.core.engine import JobProcess
from engines.core.errors import ShardbenchError
from engines.core.row import Row, Status
from engines.host import python
from engines.host.program import LOG_LINE
from engines.host.scratch import scratch_file

MEMORY_CHECK_INTERVAL_S: Final = 0.2
"""Seconds between two checks of the memory of a child that sends no message."""


def evaluate(
    engine_config: Mapping[str, Any],
    tasks: Sequence[PointTask],
    timing: TimingConfig,
    environment: Mapping[str, str],
) -> Iterator[Row]:
    """:func:`evaluate_shared` where every task is this process's."""
    rows = evaluate_shared(engine_config, tasks, timing, environment, lambda task: True)
    return (row for row in rows if row is not None)


def evaluate_shared(
    engine_config: Mapping[str, Any],
    tasks: Sequence[PointTask],
    timing: TimingConfig,
    environment: Mapping[str, str],
    may_start: Callable[[PointTask], bool],
    *,
    cores: Sequence[int] | None = None,
    started: Callable[[int], None] = lambda pid: None,
) -> Iterator[Row | None]:
    """Yield every task's row, in order, as soon as it ends: one of its stored rows if that is still valid.

    ``may_start`` is asked just before a task starts; None is yielded for one that may not, as it is somebody else's.
    The children use ``cores`` (None: as the engine's config says), and ``started`` hears the id of each.

    A child that dies, sends nothing for ``timeout_s`` of the engine's config or exceeds ``memory_limit_bytes`` fails
    the point it was evaluating; a new child evaluates the remaining points, also after a point that failed. Earlier
    points may leave memory allocated, so a point that exceeds the limit is retried in a new child unless it was the
    child's first.

    Raises:
        InvalidRequest: a limit in the engine's config is invalid.
    """
    left = list(tasks)
    while left:
        ended = 0
        work = WorkerInput(dict(engine_config), left, timing, cores=cores)
        for row in _one_child(work, environment, may_start, started=started):
            ended += 1
            yield row
        left = left[ended:]


def evaluate_lockstep(
    engine_config: Mapping[str, Any],
    tasks: Sequence[PointTask],
    timing: TimingConfig,
    environment: Mapping[str, str],
    process: JobProcess,
    may_start: Callable[[PointTask], bool | None] = lambda task: True,
    goes_on: Callable[[], bool] = lambda: True,
) -> Iterator[Row | None]:
    """:func:`evaluate` in one process of a multi-process job: each process's child joins a team of all children.

    ``may_start`` answers None while somebody else works on a task, which the team then asks again: so every process of
    the team has a sign of life, however long the other takes.

    If a team breaks, its processes start new children, which form a new team, as long as it ``goes_on``. Process 0
    yields the rows, and ends once it has told the others that no tasks remain. The others have no tasks and yield
    nothing. If a team does not form, every remaining task gets a row with status ``timeout``.

    Raises:
        ShardbenchError: this is not process 0, and process 0 did not join in time.
    """
    left = list(tasks)
    while True:
        state: dict[str, Any] = {}
        ended = 0
        work = WorkerInput(dict(engine_config), left, timing, process)
        for row in _one_child(work, environment, may_start, state):
            ended += 1
            yield row
        left = left[ended:]
        if "finished" in state or not goes_on():
            return
        if "joined" not in state:
            break
    missing = "process 0" if process.index else f"at least one of the other {process.count - 1} processes"
    error = (
        f"engine.num_processes={process.count}: {missing} did not join within "
        f"engine.join_timeout_s={engine_config['join_timeout_s']:g} s ({state.get('exit_reason', 'still waiting')}); "
        "start the same command in every process of the job"
    )
    if process.index:
        raise ShardbenchError(error)
    yield from (row_without_time(task, "timeout", error) for task in left)


def _one_child(
    work: WorkerInput,
    environment: Mapping[str, str],
    may_start: Callable[[PointTask], bool | None],
    state: dict[str, Any] | None = None,
    started: Callable[[int], None] = lambda pid: None,
) -> Iterator[Row | None]:
    """Rows of one child; if the child dies, the last row is that of the point that it was evaluating.

    Its messages are merged into ``state``. A child that dies before its team has formed was evaluating no point.
    """
    state = {} if state is None else state
    tasks, process = work.tasks, work.process
    limits = Limits.of(work.engine_config)
    timeout_s = math.inf if limits.timeout_s is None else limits.timeout_s
    reader, writer = os.pipe()
    with scratch_file() as stderr:
        child = subprocess.Popen(
            python.module_words("bench.run.worker", str(writer)),
            stdin=subprocess.PIPE,
            stdout=stderr,
            stderr=stderr,
            pass_fds=(writer,),
            env=python.environment(environment),
            start_new_session=True,
        )
        os.close(writer)
        done = 0
        try:
            started(child.pid)
            with os.fdopen(reader, "rb", buffering=0) as pipe:
                _send(child, work)
                for message in _messages(pipe, timeout_s, lambda: limits.over(child.pid)):
                    state |= message or {}
                    evaluating = done < len(tasks) and (process is None or "joined" in state)
                    if message is None:
                        if evaluating:
                            error = (
                                f"no answer within engine.timeout_s={timeout_s:g} s; raise it or use a smaller point"
                            )
                            yield _unanswered(tasks[done], "timeout", error, may_start)
                        return
                    if "resident_bytes" in message:
                        state["exit_reason"] = limits.exceeded(message["resident_bytes"])
                        if evaluating and not (done and process is None):
                            yield _unanswered(tasks[done], "failed", state["exit_reason"], may_start)
                        return
                    if "asked" in message:
                        may = may_start(tasks[done])
                        _answer(child, WAIT if may is None else GO if may else PASS)
                    if "passed" in message and done < len(tasks):  # a follower has no tasks of its own
                        done += 1
                        yield None
                    if "row" in message:
                        done += 1
                        yield Row.from_dict(message["row"])
                    if "stored_index" in message:
                        done += 1
                        yield tasks[done - 1].stored[message["stored_index"]]
                    if "restart" in message or "finished" in message:
                        return
            child.wait()
            state["exit_reason"] = _exit_reason(child.returncode, stderr)
            if done < len(tasks) and (process is None or "joined" in state):
                cause = "" if process is None else "another process of the job may have died: "
                yield _unanswered(tasks[done], "failed", cause + state["exit_reason"], may_start)
        finally:
            _kill(child)


def _unanswered(
    task: PointTask, status: Status, error: str, may_start: Callable[[PointTask], bool | None]
) -> Row | None:
    """The row of a task that a child did not answer; None if the child had not asked yet, and it is somebody else's."""
    return row_without_time(task, status, error) if may_start(task) else None


def _send(child: subprocess.Popen[bytes], work: WorkerInput) -> None:
    assert child.stdin is not None
    try:
        pickle.dump(work, child.stdin)
        child.stdin.flush()  # left open: end of file tells the child that this process has ended
    except BrokenPipeError:
        pass  # the child died at startup, which the end of its pipe shows


def _answer(child: subprocess.Popen[bytes], byte: bytes) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(byte)
        child.stdin.flush()
    except BrokenPipeError:
        pass  # the child died meanwhile, which the end of its pipe shows


def _messages(
    pipe: IO[bytes], timeout_s: float, memory_above_limit: Callable[[], float | None]
) -> Iterator[dict[str, Any] | None]:
    """The child's JSON messages until it closes the pipe; None after ``timeout_s`` seconds without one.

    If the child exceeds its memory limit, the last message is ``resident_bytes``.
    """
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            if not selector.select(min(left_s, MEMORY_CHECK_INTERVAL_S)):
                resident = memory_above_limit()
                if selector.select(0):
                    continue  # a message arrived meanwhile: the memory may belong to a later point than those received
                if resident is not None or left_s <= MEMORY_CHECK_INTERVAL_S:
                    yield None if resident is None else {"resident_bytes": resident}
                    return
                continue
            chunk = pipe.read(1 << 16)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)
                deadline = time.monotonic() + timeout_s


def _exit_reason(returncode: int, stderr: IO[bytes]) -> str:
    """One sentence: how the child ended, and the last line of its stderr that is not a log line."""
    stderr.seek(0)
    lines = [line.strip() for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
    lines = [line for line in lines if not LOG_LINE.match(line)]
    lines = [line for line in lines if not line.startswith(("@", "***", "RPC:"))] or lines  # C++ stack frames
    last = f": {lines[-1][:500]}" if lines else ""
    if returncode < 0:
        hint = ", which the kernel sends when memory runs out" if returncode == -signal.SIGKILL else ""
        return f"the worker was killed by {signal.Signals(-returncode).name}{hint}{last}"
    return f"the worker ended with exit code {returncode}{last}"


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and every process that it started: they share its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
