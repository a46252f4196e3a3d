"""Collectives of a rank: all-reduce and all-gather over tensor ranks, send and receive between pipeline stages."""

from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from engines.torch.shard import Shard


class Collectives:
    """A single rank sends nothing. Sends are asynchronous; :meth:`flush` waits for them."""

    def __init__(self, shard: Shard, timeout_s: float) -> None:
        self.shard = shard
        timeout = timedelta(seconds=timeout_s)  # a new group does not inherit it, and its default is minutes
        self.sent: list[tuple[dist.Work, Tensor]] = []
        self.tensor_group: dist.ProcessGroup | None = None
        self.activation_group: dist.ProcessGroup | None = None
        self.token_group: dist.ProcessGroup | None = None
        ranks = shard.tensor * shard.pipeline
        if ranks == 1:
            return
        # Every rank must create every group, in the same order.
        for stage in range(shard.pipeline):
            group = dist.new_group(list(range(stage * shard.tensor, (stage + 1) * shard.tensor)), timeout=timeout)
            if stage == shard.stage:
                self.tensor_group = group
        if shard.pipeline > 1:
            # Activations go forward while tokens go back: on one communicator they would wait for each other.
            self.activation_group, self.token_group = dist.new_group(timeout=timeout), dist.new_group(timeout=timeout)

    def all_reduce(self, x: Tensor) -> Tensor:
        """x summed over the tensor ranks, in place; returns x."""
        if self.shard.tensor > 1:
            dist.all_reduce(x, group=self.tensor_group)
        return x

    def all_gather(self, x: Tensor) -> Tensor:
        """x: [...] → [tensor ranks, ...]."""
        if self.shard.tensor == 1:
            return x[None]
        parts = [torch.empty_like(x) for _ in range(self.shard.tensor)]
        dist.all_gather(parts, x.contiguous(), group=self.tensor_group)
        return torch.stack(parts)

    def send_activations(self, x: Tensor) -> None:
        """Activations to the next stage."""
        self._send(x, self.shard.rank + self.shard.tensor, self.activation_group)

    def receive_activations(self, x: Tensor) -> Tensor:
        """Activations from the previous stage, into x; returns x."""
        dist.recv(x, self.shard.rank - self.shard.tensor, group=self.activation_group)
        return x

    def send_tokens(self, tokens: Tensor) -> None:
        """Tokens from the last stage to the first."""
        self._send(tokens, self.shard.tensor_rank, self.token_group)

    def receive_tokens(self, tokens: Tensor) -> Tensor:
        """On the first stage: tokens from the last stage, into ``tokens``; returns them."""
        dist.recv(
            tokens, self.shard.tensor_rank + (self.shard.pipeline - 1) * self.shard.tensor, group=self.token_group
        )
        return tokens

    def flush(self) -> None:
        """Wait until all sends have completed."""
        for work, _ in self.sent:
            work.wait()
        self.sent.clear()

    def _send(self, x: Tensor, rank: int, group: dist.ProcessGroup | None) -> None:
        x = x.contiguous()
        work = dist.isend(x, rank, group=group)
        assert work is not None
        self.sent.append((work, x))  # keep the tensor alive until it is sent


def join(device: torch.device, init_method: str, rank: int, ranks: int, timeout_s: float) -> None:
    """Join the other ranks in the default process group: NCCL on GPUs, gloo on CPUs."""
    dist.init_process_group(
        "gloo" if device.type == "cpu" else "nccl",
        init_method=init_method,
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=timeout_s),
    )
