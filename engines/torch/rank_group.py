"""The ranks of a point as one: in this process where there is one, else as child processes on pipes."""

import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Final, Protocol

from engines.core.errors import ShardbenchError, TimedOut, Unsupported
from engines.core.point import Point
from engines.torch.devices import does_not_fit, is_out_of_memory
from engines.torch.rank import Job, Rank

GRACE_S: Final = 0.5
"""After a first bad word, so long for others: a rank that lost a neighbour complains before the loss is seen."""


class RankFailed(ShardbenchError):
    """A rank died or raised."""


class Crew(Protocol):
    """All ranks of a point."""

    def call(self, method: str) -> list[Any]:
        """Call a method of :class:`Rank` on every rank at once; returns when all have, in order of rank.

        Raises:
            OutOfMemory: memory ran out on some rank.
            RankFailed: a rank died or raised.
            TimedOut: a rank did not answer in time.
        """
        ...

    def close(self) -> None:
        """End every rank, and give its memory back."""
        ...


class Alone:
    """The one rank of a point, in this process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.rank: Rank | None = None
        _free(job.point)
        try:
            self.rank = Rank(job, 0, 0)
        except (RuntimeError, MemoryError) as error:
            raise self._told(error) from error

    def call(self, method: str) -> list[Any]:
        """See :class:`Crew`."""
        try:
            return [getattr(self.rank, method)()]
        except (RuntimeError, MemoryError) as error:
            raise self._told(error) from error

    def close(self) -> None:
        """See :class:`Crew`."""
        self.rank = None
        _free(self.job.point)

    def _told(self, error: BaseException) -> BaseException:
        return does_not_fit(self.job.point, str(error)) if is_out_of_memory(error) else error


class Children:
    """The ranks of a point, each a child process.

    They live in this process's group and end with it: at the end of their stdin, and by the kernel's word on Linux.
    """

    def __init__(self, job: Job, timeout_s: float) -> None:
        self.job, self.timeout_s = job, timeout_s
        self.folder = tempfile.TemporaryDirectory(prefix="shardbench-")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.pipes: list[Connection[Any, Any]] = []
        try:
            for rank in range(job.point.num_chips):
                self._start(rank)
            self._all_replies("load")
        except BaseException:
            self.close()
            raise

    def call(self, method: str) -> list[Any]:
        """See :class:`Crew`."""
        if not self.pipes:
            raise RankFailed(f"{method}: the ranks have ended")
        try:
            for pipe in self.pipes:
                with contextlib.suppress(BrokenPipeError):
                    pipe.send(method)  # a rank that is gone is told of by the end of its pipe
            return self._all_replies(method)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """See :class:`Crew`."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        for pipe in self.pipes:
            pipe.close()
        self.processes, self.pipes = [], []
        self.folder.cleanup()

    def _start(self, rank: int) -> None:
        mine, theirs = Pipe()
        said = self._said_path(rank).open("wb")
        with said, theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "engines.torch.worker", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **_environment(self.job)},
            )
        self.processes.append(process)
        self.pipes.append(mine)
        with contextlib.suppress(BrokenPipeError):
            mine.send((self.job, rank, f"file://{self.folder.name}/meeting"))

    def _all_replies(self, method: str) -> list[Any]:
        replies: dict[int, Any] = {}
        bad: dict[int, tuple[str, str]] = {}
        deadline = time.monotonic() + self.timeout_s
        waiting = {pipe: rank for rank, pipe in enumerate(self.pipes)}
        while waiting:
            ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = waiting.pop(pipe)
                kind, value = self._reply(pipe, rank)
                if kind == "ok":
                    replies[rank] = value
                else:
                    if not bad:
                        deadline = min(deadline, time.monotonic() + GRACE_S)
                    bad[rank] = (kind, value)
        if bad:
            raise self._failure(method, bad)
        if waiting:
            silent = ", ".join(str(rank) for rank in sorted(waiting.values()))
            raise TimedOut(
                f"{method}: rank {silent} of {len(self.processes)} gave no answer within "
                f"engine.rank_timeout_s={self.timeout_s:g} s"
            )
        return [replies[rank] for rank in sorted(replies)]

    def _reply(self, pipe: "Connection[Any, Any]", rank: int) -> tuple[str, Any]:
        try:
            kind, value = pipe.recv()
        except (EOFError, ConnectionResetError):
            return "died", self._death(rank)
        return kind, value

    def _death(self, rank: int) -> str:
        try:
            code = self.processes[rank].wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        lines = [
            line.strip() for line in self._said_path(rank).read_text(errors="replace").splitlines() if line.strip()
        ]
        last = f": {lines[-1][:300]}" if lines else ""
        if code == -9:
            return f"was ended by SIGKILL, as the system does when memory runs out{last}"
        return f"was ended by signal {-code}{last}" if code < 0 else f"ended with exit code {code}{last}"

    def _failure(self, method: str, bad: dict[int, tuple[str, str]]) -> ShardbenchError:
        """The reason that explains the others: memory before a death before a complaint."""
        for wanted in ("oom", "unsupported", "died", "failed"):
            for rank, (kind, value) in sorted(bad.items()):
                if kind != wanted:
                    continue
                if kind == "oom":
                    return does_not_fit(self.job.point, f"rank {rank}: {value}")
                if kind == "unsupported":
                    return Unsupported(value)
                return RankFailed(f"{method}: rank {rank} of {len(self.processes)} {value}")
        raise AssertionError(bad)

    def _said_path(self, rank: int) -> Path:
        return Path(self.folder.name) / f"rank-{rank}"


def make_crew(job: Job, timeout_s: float) -> Crew:
    """The ranks of a job, loaded.

    Raises:
        See :meth:`Crew.call`.
    """
    return Alone(job) if job.point.num_chips == 1 else Children(job, timeout_s)


def _free(point: Point) -> None:
    """Give back what the ranks before held: they refer to themselves, so they lie there until garbage is collected."""
    gc.collect()
    if point.chip.kind == "gpu":
        import torch

        torch.cuda.empty_cache()


def _environment(job: Job) -> dict[str, str]:
    found = {"OMP_NUM_THREADS": str(max(1, job.threads))}
    if job.point.chip.kind == "cpu" and sys.platform == "linux":
        found["GLOO_SOCKET_IFNAME"] = "lo"  # all ranks are on this machine
    return found


def threads_a_rank(point: Point, here: int) -> int:
    """Cores for each of the ``here`` ranks on this machine where hw=cpu; 0 leaves it to PyTorch."""
    if point.chip.kind != "cpu" or here == 1:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // here)
