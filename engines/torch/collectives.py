"""A rank's links to the others: sums and gathers among tensor ranks, hand-overs between pipeline stages."""

from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from engines.torch.shard import Shard


class Links:
    """Nothing is sent where one rank is alone. Sends do not wait; :meth:`flush` does."""

    def __init__(self, shard: Shard, timeout_s: float) -> None:
        self.shard = shard
        timeout = timedelta(seconds=timeout_s)  # a new group has a time-out of its own, of many minutes
        self.sent: list[tuple[dist.Work, Tensor]] = []
        self.tensor_group: dist.ProcessGroup | None = None
        self.ahead: dist.ProcessGroup | None = None
        self.back: dist.ProcessGroup | None = None
        ranks = shard.tensor * shard.pipeline
        if ranks == 1:
            return
        # Every rank makes every group, in the same order.
        for stage in range(shard.pipeline):
            group = dist.new_group(list(range(stage * shard.tensor, (stage + 1) * shard.tensor)), timeout=timeout)
            if stage == shard.stage:
                self.tensor_group = group
        if shard.pipeline > 1:
            # Activations run ahead while tokens run back: on one communicator each would wait for the other.
            self.ahead, self.back = dist.new_group(timeout=timeout), dist.new_group(timeout=timeout)

    def total(self, x: Tensor) -> Tensor:
        """x summed over the tensor ranks, in place."""
        if self.shard.tensor > 1:
            dist.all_reduce(x, group=self.tensor_group)
        return x

    def everyones(self, x: Tensor) -> Tensor:
        """x: [...] → [tensor ranks, ...]."""
        if self.shard.tensor == 1:
            return x[None]
        parts = [torch.empty_like(x) for _ in range(self.shard.tensor)]
        dist.all_gather(parts, x.contiguous(), group=self.tensor_group)
        return torch.stack(parts)

    def send_ahead(self, x: Tensor) -> None:
        """Activations to the next stage."""
        self._send(x, self.shard.rank + self.shard.tensor, self.ahead)

    def receive_ahead(self, x: Tensor) -> Tensor:
        """Activations from the stage before, into x."""
        dist.recv(x, self.shard.rank - self.shard.tensor, group=self.ahead)
        return x

    def send_back(self, tokens: Tensor) -> None:
        """Tokens from the last stage to the first."""
        self._send(tokens, self.shard.tensor_rank, self.back)

    def receive_back(self, tokens: Tensor) -> Tensor:
        """Tokens from the last stage, on the first, into ``tokens``."""
        dist.recv(tokens, self.shard.tensor_rank + (self.shard.pipeline - 1) * self.shard.tensor, group=self.back)
        return tokens

    def flush(self) -> None:
        """Wait until all that was sent has left."""
        for work, _ in self.sent:
            work.wait()
        self.sent.clear()

    def _send(self, x: Tensor, rank: int, group: dist.ProcessGroup | None) -> None:
        x = x.contiguous()
        work = dist.isend(x, rank, group=group)
        assert work is not None
        self.sent.append((work, x))  # the tensor must live until it has left


def join(device: torch.device, init_method: str, rank: int, ranks: int, timeout_s: float) -> None:
    """Meet the other ranks: NCCL on GPUs, gloo on CPUs."""
    dist.init_process_group(
        "gloo" if device.type == "cpu" else "nccl",
        init_method=init_method,
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=timeout_s),
    )
