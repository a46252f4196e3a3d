"""Runs a job's points in a child process, and outlives whatever happens to it."""

import contextlib
import json
import os
import pickle
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Final

from bench.measure.timing import TimingConfig
from bench.run.limits import Limits
from bench.run.make_row import PointTask, unanswered
from bench.run.worker import WorkerInput
from engines.core.engine import JobProcess
from engines.core.errors import ShardbenchError
from engines.core.row import Row

_LOGGED: Final = re.compile(r"[IW]\d{4} |WARNING: All log messages before absl::InitializeLog")
"""Begins a line that libraries in C++ log, errors aside: no reason why a process ended."""
WATCH_S: Final = 0.2
"""Between two looks at the memory of a child that says nothing."""


def evaluate(
    engine_config: Mapping[str, Any],
    questions: Sequence[PointTask],
    timing: TimingConfig,
    environment: Mapping[str, str],
) -> Iterator[Row]:
    """Yield every question's row, in order, the moment it ends: one of its stored rows where that is still the answer.

    A child that dies, is silent for ``timeout_s`` of the engine's config or takes more than its ``memory_limit_bytes``
    costs the point it was at; the points after it go on in a new child, as they do after a point that failed. Memory
    may be left over from former points, so a point that was not a child's first is asked again in a new one.

    Raises:
        InvalidRequest: a limit of the engine's config is none.
    """
    left = list(questions)
    while left:
        ended = 0
        for row in _one_child(engine_config, left, timing, environment):
            ended += 1
            yield row
        left = left[ended:]


def evaluate_together(
    engine_config: Mapping[str, Any],
    questions: Sequence[PointTask],
    timing: TimingConfig,
    environment: Mapping[str, str],
    process: JobProcess,
) -> Iterator[Row]:
    """:func:`evaluate` in a process of a job: each child is one of a team, and a lost team is followed by a new one.

    Process 0 yields the rows, and goes on until it has told the others that there are no more. The others have no
    questions, and yield nothing. Where a team does not come together, every question left is a row that says so.

    Raises:
        ShardbenchError: process 0 did not come, where this is another.
    """
    left = list(questions)
    while True:
        heard: dict[str, Any] = {}
        ended = 0
        for row in _one_child(engine_config, left, timing, environment, process, heard):
            ended += 1
            yield row
        left = left[ended:]
        if "dismissed" in heard:
            return
        if "joined" not in heard:
            break
    missing = "process 0 was not" if process.index else f"not all of the other {process.count - 1} were"
    error = (
        f"engine.num_processes={process.count}: {missing} there within "
        f"engine.join_timeout_s={engine_config['join_timeout_s']:g} s ({heard.get('death', 'still waiting')})"
    )
    if process.index:
        raise ShardbenchError(error)
    yield from (unanswered(question, "timeout", error) for question in left)


def _one_child(
    engine_config: Mapping[str, Any],
    questions: Sequence[PointTask],
    timing: TimingConfig,
    environment: Mapping[str, str],
    process: JobProcess | None = None,
    heard: dict[str, Any] | None = None,
) -> Iterator[Row]:
    """Rows of one child, the last of which is the one that it died on, if it did.

    What else it says is kept in ``heard``. A child that dies before its team has come together dies on no question.
    """
    heard = {} if heard is None else heard
    timeout_s, limits = float(engine_config["timeout_s"]), Limits.of(engine_config)
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.run.worker", str(writer)],
            stdin=subprocess.PIPE,
            stdout=stderr,
            stderr=stderr,
            pass_fds=(writer,),
            env={**os.environ, **environment},
            start_new_session=True,
        )
        os.close(writer)
        answered = 0
        try:
            with os.fdopen(reader, "rb", buffering=0) as pipe:
                _send(child, WorkerInput(dict(engine_config), list(questions), timing, process))
                for message in _messages(pipe, timeout_s, lambda: limits.over(child.pid)):
                    heard |= message or {}
                    at_one = answered < len(questions) and (process is None or "joined" in heard)
                    if message is None:
                        if at_one:
                            error = f"no answer within engine.timeout_s={timeout_s:g} s; raise it or ask for less"
                            yield unanswered(questions[answered], "timeout", error)
                        return
                    if "held_bytes" in message:
                        heard["death"] = limits.told(message["held_bytes"])
                        if at_one and not (answered and process is None):
                            yield unanswered(questions[answered], "failed", heard["death"])
                        return
                    if "row" in message:
                        answered += 1
                        yield Row.from_dict(message["row"])
                    if "kept" in message:
                        answered += 1
                        yield questions[answered - 1].stored[message["kept"]]
                    if "lost" in message or "dismissed" in message:
                        return
            child.wait()
            heard["death"] = _death(child.returncode, stderr)
            if answered < len(questions) and (process is None or "joined" in heard):
                lost = "" if process is None else "another process of the job may be lost: "
                yield unanswered(questions[answered], "failed", lost + heard["death"])
        finally:
            _end(child)


def _send(child: subprocess.Popen[bytes], work: WorkerInput) -> None:
    assert child.stdin is not None
    try:
        pickle.dump(work, child.stdin)
        child.stdin.flush()  # and left open: its end tells the child that we are gone
    except BrokenPipeError:
        pass  # it died at its start; the end of its pipe says so


def _messages(
    pipe: IO[bytes], timeout_s: float, held_too_much: Callable[[], float | None]
) -> Iterator[dict[str, Any] | None]:
    """The child's JSON lines until it closes the pipe; None once it has been silent for too long.

    Where the child holds too much memory, the last message is ``held_bytes``.
    """
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            if not selector.select(min(left_s, WATCH_S)):
                held = held_too_much()
                if selector.select(0):
                    continue  # it spoke meanwhile, so what it holds may be of a later point than those heard of
                if held is not None or left_s <= WATCH_S:
                    yield None if held is None else {"held_bytes": held}
                    return
                continue
            chunk = pipe.read(1 << 16)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)
                deadline = time.monotonic() + timeout_s


def _death(returncode: int, stderr: IO[bytes]) -> str:
    stderr.seek(0)
    lines = [line.strip() for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
    lines = [line for line in lines if not _LOGGED.match(line)]
    lines = [line for line in lines if not line.startswith(("@", "***", "RPC:"))] or lines  # of a stack in C++
    last = f": {lines[-1][:500]}" if lines else ""
    if returncode < 0:
        hint = ", as the system does when memory runs out" if returncode == -signal.SIGKILL else ""
        return f"the worker was ended by {signal.Signals(-returncode).name}{hint}{last}"
    return f"the worker ended with exit code {returncode}{last}"


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and every process that it started: they share its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
