"""The ranks of a point as a group: a single rank in this process, several as child processes."""

import contextlib
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from engines.core.errors import ShardbenchError, TimedOut, Unsupported
from engines.core.point import Point
from engines.host.python import environment, module_words
from engines.host.scratch import ScratchFolder
from engines.torch.devices import does_not_fit, is_out_of_memory
from engines.torch.job import Job
from engines.torch.rank import Rank

T = TypeVar("T")
GRACE_S: Final = 0.5
"""Wait this long for more replies after a first failure: the rank that caused it may be seen after its neighbors."""


class RankFailed(ShardbenchError):
    """A rank died or raised."""


class RankGroup(Protocol):
    """All ranks of a point."""

    def call(self, method: str) -> list[Any]:
        """Call a method of :class:`Rank` on every rank at once; returns the results in order of rank.

        Raises:
            OutOfMemory: a rank ran out of memory.
            RankFailed: a rank died or raised.
            TimedOut: a rank did not reply in time.
        """
        ...

    def once(self, compute: Callable[[], T]) -> T:
        """What ``compute`` returns, which one process calls where several have the ranks."""
        return compute()

    def close(self) -> None:
        """End every rank and free its memory."""
        ...


class InProcess(RankGroup):
    """The one rank of a point, in this process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.rank: Rank | None = None
        _free(job.point)
        try:
            self.rank = Rank(job, 0, 0)
        except (RuntimeError, MemoryError) as error:
            raise self._translated(error) from error

    def call(self, method: str) -> list[Any]:
        """See :class:`RankGroup`."""
        try:
            return [getattr(self.rank, method)()]
        except (RuntimeError, MemoryError) as error:
            raise self._translated(error) from error

    def close(self) -> None:
        """See :class:`RankGroup`."""
        if self.rank is not None:
            self.rank.layers.close()
        self.rank = None
        _free(self.job.point)

    def _translated(self, error: BaseException) -> BaseException:
        return does_not_fit(self.job.point, str(error)) if is_out_of_memory(error) else error


class ChildProcesses(RankGroup):
    """The ranks of a point, each a child process with a pipe.

    They end with this process: when their stdin closes and, on Linux, by PR_SET_PDEATHSIG.
    """

    def __init__(self, job: Job, timeout_s: float) -> None:
        self.job, self.timeout_s = job, timeout_s
        self.folder = ScratchFolder()
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
        """See :class:`RankGroup`."""
        if not self.pipes:
            raise RankFailed(f"{method}: the ranks have ended")
        try:
            for pipe in self.pipes:
                with contextlib.suppress(BrokenPipeError):
                    pipe.send(method)  # _all_replies reports a rank that has ended
            return self._all_replies(method)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """See :class:`RankGroup`."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        for pipe in self.pipes:
            pipe.close()
        self.processes, self.pipes = [], []
        self.folder.close()

    def _start(self, rank: int) -> None:
        ours, theirs = Pipe()
        log = self._log_path(rank).open("wb")
        with log, theirs:
            process = subprocess.Popen(
                module_words("engines.torch.worker", str(theirs.fileno())),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                env=environment(_environment(self.job)),
            )
        self.processes.append(process)
        self.pipes.append(ours)
        with contextlib.suppress(BrokenPipeError):
            ours.send((self.job, rank, f"file://{self.folder.path}/rendezvous"))

    def _all_replies(self, method: str) -> list[Any]:
        replies: dict[int, Any] = {}
        failures: dict[int, tuple[str, str]] = {}
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
                    if not failures:
                        deadline = min(deadline, time.monotonic() + GRACE_S)
                    failures[rank] = (kind, value)
        if failures:
            raise self._failure(method, failures)
        if waiting:
            silent = ", ".join(str(rank) for rank in sorted(waiting.values()))
            raise TimedOut(
                f"{method}: rank {silent} of {len(self.processes)} did not reply within "
                f"engine.rank_timeout_s={self.timeout_s:g} s"
            )
        return [replies[rank] for rank in sorted(replies)]

    def _reply(self, pipe: "Connection[Any, Any]", rank: int) -> tuple[str, Any]:
        try:
            kind, value = pipe.recv()
        except (EOFError, ConnectionResetError):
            return "died", self._exit_reason(rank)
        return kind, value

    def _exit_reason(self, rank: int) -> str:
        try:
            code = self.processes[rank].wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        lines = [line.strip() for line in self._log_path(rank).read_text(errors="replace").splitlines() if line.strip()]
        last = f": {lines[-1][:300]}" if lines else ""
        if code == -9:
            return f"was killed by SIGKILL, as the system does when memory runs out{last}"
        return f"was killed by signal {-code}{last}" if code < 0 else f"ended with exit code {code}{last}"

    def _failure(self, method: str, failures: dict[int, tuple[str, str]]) -> ShardbenchError:
        """The error of the most likely cause: out of memory first, then a rank that ended, then one that raised."""
        for wanted in ("oom", "unsupported", "died", "failed"):
            for rank, (kind, value) in sorted(failures.items()):
                if kind != wanted:
                    continue
                if kind == "oom":
                    return does_not_fit(self.job.point, f"rank {rank}: {value}")
                if kind == "unsupported":
                    return Unsupported(value)
                return RankFailed(f"{method}: rank {rank} of {len(self.processes)} {value}")
        raise AssertionError(failures)

    def _log_path(self, rank: int) -> Path:
        return self.folder.path / f"rank-{rank}"


def make_rank_group(job: Job, timeout_s: float) -> RankGroup:
    """The ranks of a job, loaded.

    Raises:
        See :meth:`RankGroup.call`.
    """
    return InProcess(job) if job.point.num_chips == 1 else ChildProcesses(job, timeout_s)


def _free(point: Point) -> None:
    """Free the memory of earlier ranks, which reference cycles keep alive until garbage collection."""
    gc.collect()
    if point.chip.kind == "gpu":
        import torch

        torch.cuda.empty_cache()


def _environment(job: Job) -> dict[str, str]:
    found = {"OMP_NUM_THREADS": str(max(1, job.threads))}
    if job.point.chip.kind == "cpu" and sys.platform == "linux":
        found["GLOO_SOCKET_IFNAME"] = "lo"  # all ranks run on this machine
    return found


def threads_a_rank(point: Point, here: int) -> int:
    """CPU threads for each of the ``here`` ranks on this machine where hw=cpu; 0 is PyTorch's default."""
    if point.chip.kind != "cpu" or here == 1:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // here)
