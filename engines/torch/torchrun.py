"""The processes that torchrun started, on one machine or several, as one job: each runs one rank of every point.

Importing this module does not import PyTorch. The processes meet at torchrun's own store (``MASTER_ADDR``,
``MASTER_PORT``), also after one of them had to start anew.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from engines.core.engine import JobProcess
from engines.core.errors import ShardbenchError, Unsupported

if TYPE_CHECKING:
    from engines.core.point import Point
    from engines.torch.job import Job

LAUNCHED: Final = "TORCHELASTIC_RUN_ID"
"""A variable that torchrun, and nothing else, sets in the processes that it starts."""
TIMED: Final = ("prefill", "decode")


def process_of() -> JobProcess | None:
    """Which of torchrun's processes this is; None where it started none, or this one alone."""
    if LAUNCHED not in os.environ or os.environ["WORLD_SIZE"] == "1":
        return None
    return JobProcess(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def ranks_here(point: Point) -> int:
    """How many ranks of a point are on this machine.

    Raises:
        Unsupported: torchrun started another number of ranks than the point has.
    """
    process = process_of()
    if process is None:
        return point.num_chips
    if point.num_chips != process.count:
        raise Unsupported(
            f"num_chips={point.num_chips}: torchrun started {process.count} processes, each a rank; use "
            f"num_chips={process.count}, or start as many as there are chips"
        )
    return int(os.environ["LOCAL_WORLD_SIZE"])


def _distributed() -> Any:
    """``torch.distributed``, which exports its stores without their types."""
    import torch.distributed

    return torch.distributed


class TorchrunTeam:
    """Implements :class:`engines.core.engine.Team`, over the store by which torchrun's processes meet."""

    def __init__(self, join_timeout_s: float, timeout_s: float) -> None:
        """Meet the other processes, within ``join_timeout_s``; later calls may take ``timeout_s``.

        Raises:
            ShardbenchError: PyTorch reaches no store, or not all processes come.
        """
        dist = _distributed()
        process = process_of()
        assert process is not None
        self.process, self.timeout_s, self._calls, self._points = process, timeout_s, 0, 0
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        of_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        try:
            store = dist.TCPStore(
                *place, is_master=not of_agent and process.index == 0, timeout=timedelta(seconds=join_timeout_s)
            )
            # Every process starts anew as often as the others do: a broken team costs all of them their child.
            meeting = store.add(f"shardbench/{process.index}", 1)
            self._store: Any = dist.PrefixStore(f"shardbench/meeting-{meeting}", store)
            self.exchange(None)
            store.set_timeout(timedelta(seconds=timeout_s))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ShardbenchError(
                f"MASTER_ADDR={place[0]}: not all of torchrun's processes met there ({reason})"
            ) from None

    def exchange(self, value: Any) -> list[Any]:
        """See :class:`engines.core.engine.Team`."""
        self._calls += 1
        own = f"{self.process.index}"
        self._store.set(f"{self._calls}/{own}", pickle.dumps(value))
        found = [pickle.loads(self._store.get(f"{self._calls}/{each}")) for each in range(self.process.count)]
        if self._calls > 1:  # all have read what was said before, or they had not said this
            self._store.delete_key(f"{self._calls - 1}/{own}")
        return found

    def leave(self) -> None:
        """See :class:`engines.core.engine.Team`."""
        self.exchange(None)

    def ranks(self, job: Job) -> JoinedRanks:
        """The ranks of a job, each in a process of the team.

        Raises:
            See :meth:`engines.torch.rank_group.RankGroup.call`.
        """
        self._points += 1
        return JoinedRanks(job, self, _distributed().PrefixStore(f"point-{self._points}", self._store))


class JoinedRanks:
    """Implements :class:`engines.torch.rank_group.RankGroup`: this process's rank, in step with those of the others."""

    def __init__(self, job: Job, team: TorchrunTeam, store: Any) -> None:
        """Load the rank. The processes tell each other what went wrong before any computes."""
        import torch.distributed as dist

        from engines.torch.devices import device_of
        from engines.torch.rank import Rank

        self.job, self.team = job, team
        local = int(os.environ["LOCAL_RANK"])
        device = device_of(job.point, local)
        dist.init_process_group(
            "gloo" if device.type == "cpu" else "nccl",
            store=store,
            rank=team.process.index,
            world_size=team.process.count,
            timeout=timedelta(seconds=job.timeout_s),
        )
        self.rank: Rank | None = None
        try:
            self.rank = self._own(lambda: Rank(job, team.process.index, local))
        except BaseException:
            self.close()
            raise

    def call(self, method: str) -> list[Any]:
        """See :class:`engines.torch.rank_group.RankGroup`. A timed method ends once it has ended on every rank."""
        import torch.distributed as dist

        own = self._own(getattr(self.rank, method))
        if method not in TIMED:
            return self.team.exchange(own)
        dist.barrier()
        return [None] * self.team.process.count

    def once(self, compute: Callable[[], Any]) -> Any:
        """See :class:`engines.torch.rank_group.RankGroup`."""
        return self.team.exchange(compute() if self.team.process.index == 0 else None)[0]

    def close(self) -> None:
        """See :class:`engines.torch.rank_group.RankGroup`."""
        import torch.distributed as dist

        if self.rank is not None:
            self.rank.layers.close()
        self.rank = None
        dist.destroy_process_group()

    def _own(self, call: Callable[[], Any]) -> Any:
        from engines.torch.devices import does_not_fit, is_out_of_memory

        try:
            return call()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise does_not_fit(self.job.point, f"rank {self.team.process.index}: {error}") from error
