"""``max_parallel=N``: several children at once, each of which takes the next point that no other has taken."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final

from bench.measure.timing import TimingConfig
from bench.run.child import evaluate_shared
from bench.run.make_row import PointTask
from engines.core.point import Point
from engines.core.row import Row

Start = Callable[[PointTask], bool]
NOBODY: Final = -1
"""The number of no worker: the task is another command's."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A worker's question whether it may start a task; the answer goes to ``answer``."""

    worker: int
    task: PointTask
    answer: "SimpleQueue[bool]"


@dataclass(frozen=True, slots=True)
class Ended:
    """A task's row (None: it was not this worker's); without a task, the worker itself has ended, or failed."""

    task: PointTask | None = None
    row: Row | None = None
    error: BaseException | None = None


class _Stopped(Exception):
    """Nobody waits for the points any more."""


class Workers:
    """Children at once. ``together`` says of a point what those have in common that one child shall answer.

    ``beside`` holds, for each child, its cores (None: as the engine's config says) and what it does with a task around
    its run: take and give back devices.
    """

    def __init__(
        self,
        engine_config: Mapping[str, Any],
        timing: TimingConfig,
        environment: Mapping[str, str],
        together: Callable[[Point], Point],
    ) -> None:
        self._config, self._timing, self._environment = engine_config, timing, environment
        self._together = together
        self._messages: SimpleQueue[Asked | Ended] = SimpleQueue()
        self._lock = Lock()
        self._children: set[int] = set()
        self._stopping = False

    def evaluate(
        self, tasks: Sequence[PointTask], may_start: Start, beside: Sequence["Beside"]
    ) -> Iterator[tuple[PointTask, Row | None]]:
        """Yield every task with its row as it ends; None for one that may not start, as it is somebody else's.

        ``may_start`` is asked in this thread alone. Tasks are taken in their order, those of a group by one child.
        """
        taken: dict[str, int] = {}
        owner: dict[Point, int] = {}
        threads = [
            Thread(target=self._work, args=(number, tasks, each), name=f"points {number}", daemon=True)
            for number, each in enumerate(beside)
        ]
        running = len(threads)
        for thread in threads:
            thread.start()
        try:
            while running:
                message = self._messages.get()
                if isinstance(message, Asked):
                    task, worker = message.task, message.worker
                    is_first = owner.setdefault(self._together(task.point), worker) == worker
                    is_new = is_first and task.point_id not in taken
                    if is_new:
                        taken[task.point_id] = worker if may_start(task) else NOBODY
                    message.answer.put(taken.get(task.point_id) == worker)
                    if is_new and taken[task.point_id] == NOBODY:
                        yield task, None
                elif message.task is None:
                    running -= 1
                    if message.error is not None:
                        raise message.error
                elif message.row is not None:
                    yield message.task, message.row
        finally:
            self._stop(running)

    def _work(self, number: int, tasks: Sequence[PointTask], beside: "Beside") -> None:
        """One child after the other, in a thread of its own."""

        def may_start(task: PointTask) -> bool:
            if self._stopping:
                raise _Stopped
            answer: SimpleQueue[bool] = SimpleQueue()
            self._messages.put(Asked(number, task, answer))
            if not answer.get():
                return False
            beside.begin(task)
            return True

        error: BaseException | None = None
        try:
            rows = evaluate_shared(
                *(self._config, tasks, self._timing, self._environment, may_start),
                cores=beside.cores,
                started=self._started,
            )
            for task, row in zip(tasks, rows, strict=True):
                beside.end()
                self._messages.put(Ended(task, row))
        except _Stopped:
            pass
        except BaseException as raised:  # for the thread that waits
            error = raised
        finally:
            beside.close()
            self._messages.put(Ended(error=error))

    def _started(self, pid: int) -> None:
        with self._lock:
            self._children.add(pid)
            if self._stopping:
                raise _Stopped

    def _stop(self, running: int) -> None:
        """End all children, and wait for their threads."""
        with self._lock:
            self._stopping = True
            children = set(self._children)
        if not running:
            return
        for pid in children:
            with suppress(ChildProcessError, ProcessLookupError):
                os.waitid(
                    os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
                )  # raises if it is no more, nor its id ours
                os.killpg(pid, signal.SIGKILL)
        while running:
            message = self._messages.get()
            if isinstance(message, Asked):
                message.answer.put(False)
            elif message.task is None:
                running -= 1


class Beside:
    """What a child has beside its points: nothing, by default."""

    cores: Sequence[int] | None = None

    def begin(self, task: PointTask) -> None:
        """Just before a task starts; may wait."""

    def end(self) -> None:
        """After a task has ended."""

    def close(self) -> None:
        """After the last task."""
