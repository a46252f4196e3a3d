"""Runs a job's points in a child process, and outlives whatever happens to it."""

import contextlib
import json
import os
import pickle
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from bench.rows import Question, unanswered
from bench.timing import TimingConfig
from bench.worker import Work
from engines.row import Row


def evaluate(
    engine_config: Mapping[str, Any],
    questions: Sequence[Question],
    timing: TimingConfig,
    environment: Mapping[str, str],
) -> Iterator[Row]:
    """Yield every question's row, in order, the moment it ends.

    A child that dies, or is silent for ``timeout_s`` of the engine's config, costs the point it was at; the points
    after it go on in a new child.
    """
    left = list(questions)
    while left:
        ended = 0
        for row in _one_child(engine_config, left, timing, environment):
            ended += 1
            yield row
        left = left[ended:]


def _one_child(
    engine_config: Mapping[str, Any],
    questions: Sequence[Question],
    timing: TimingConfig,
    environment: Mapping[str, str],
) -> Iterator[Row]:
    """Rows of one child, the last of which is the one that it died on, if it did."""
    timeout_s = float(engine_config["timeout_s"])
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", str(writer)],
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
                _send(child, Work(dict(engine_config), list(questions), timing))
                for message in _messages(pipe, timeout_s):
                    if message is None:
                        error = f"no answer within engine.timeout_s={timeout_s:g} s; raise it or ask for less"
                        yield unanswered(questions[answered], "timeout", error)
                        return
                    if "row" in message:
                        answered += 1
                        yield Row.from_dict(message["row"])
            if answered < len(questions):
                child.wait()
                yield unanswered(questions[answered], "failed", _death(child.returncode, stderr))
        finally:
            _end(child)


def _send(child: subprocess.Popen[bytes], work: Work) -> None:
    assert child.stdin is not None
    try:
        pickle.dump(work, child.stdin)
        child.stdin.flush()  # and left open: its end tells the child that we are gone
    except BrokenPipeError:
        pass  # it died at its start; the end of its pipe says so


def _messages(pipe: IO[bytes], timeout_s: float) -> Iterator[dict[str, Any] | None]:
    """The child's JSON lines until it closes the pipe; None once it has been silent for too long."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        deadline = time.monotonic() + timeout_s
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                yield None
                return
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
