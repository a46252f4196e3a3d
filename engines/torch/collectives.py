"""Collectives of a rank: sums, gathers and exchanges over tensor ranks, send and receive between pipeline stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from engines.torch.shard import Shard


@dataclass(frozen=True, slots=True)
class Exchanged:
    """``rows`` that the other ranks sent, in order of rank, and how many of them each sent."""

    rows: Tensor
    received: list[int]


class Collectives:
    """A single rank sends nothing. Sends are asynchronous; :meth:`flush` waits for them."""

    def __init__(self, shard: Shard, timeout_s: float) -> None:
        self.shard = shard
        self.timeout = timedelta(seconds=timeout_s)  # a new group does not inherit it, and its default is minutes
        self.sent: list[tuple[dist.Work, Tensor]] = []
        self.tensor_group: dist.ProcessGroup | None = None
        self.attention_group: dist.ProcessGroup | None = None
        self.data_group: dist.ProcessGroup | None = None
        self.activation_group: dist.ProcessGroup | None = None
        self.token_group: dist.ProcessGroup | None = None
        ranks = shard.tensor * shard.pipeline
        if ranks == 1:
            return
        stages = [[stage * shard.tensor + each for each in range(shard.tensor)] for stage in range(shard.pipeline)]
        self.tensor_group = self._group(stages)
        self.attention_group = self.tensor_group
        if shard.data > 1:
            size = shard.attention
            self.attention_group = self._group(
                [stage[start : start + size] for stage in stages for start in range(0, shard.tensor, size)]
            )
            self.data_group = self._group([stage[first::size] for stage in stages for first in range(size)])
        if shard.pipeline > 1:
            # Activations go forward while tokens go back: on one communicator they would wait for each other.
            self.activation_group = dist.new_group(timeout=self.timeout)
            self.token_group = dist.new_group(timeout=self.timeout)

    def _group(self, groups: Sequence[Sequence[int]]) -> "dist.ProcessGroup | None":
        """This rank's of several groups, all of which every rank must make, in the same order."""
        own = None
        for ranks in groups:
            made = dist.new_group(list(ranks), timeout=self.timeout)
            own = made if self.shard.rank in ranks else own
        return own

    def all_reduce(self, x: Tensor) -> Tensor:
        """x summed over the tensor ranks, in place; returns x."""
        if self.shard.tensor > 1:
            dist.all_reduce(x, group=self.tensor_group)
        return x

    def reduce_attention(self, x: Tensor) -> Tensor:
        """x summed over the ranks that share a sequence, in place; returns x."""
        if self.shard.attention > 1:
            dist.all_reduce(x, group=self.attention_group)
        return x

    def own_tokens(self, x: Tensor) -> Tensor:
        """x: [tokens, embed] → this tensor rank's, of as many for each rank, zeros behind the last one."""
        size = -(-x.shape[0] // self.shard.tensor)
        own = x[self.shard.tensor_rank * size : (self.shard.tensor_rank + 1) * size]
        return F.pad(own, (0, 0, 0, size - own.shape[0]))

    def gather_tokens(self, x: Tensor) -> Tensor:
        """x: :meth:`own_tokens` → those of all tensor ranks, in order."""
        return self._gathered(x, self.shard.tensor, self.tensor_group).flatten(0, 1)

    def reduce_scatter_tokens(self, x: Tensor) -> Tensor:
        """x: [tokens, embed] → the sum over the tensor ranks of this one's :meth:`own_tokens`."""
        ranks = self.shard.tensor
        size = -(-x.shape[0] // ranks)
        parts = list(F.pad(x, (0, 0, 0, ranks * size - x.shape[0])).chunk(ranks))
        own = torch.empty_like(parts[0])
        dist.reduce_scatter(own, parts, group=self.tensor_group)
        return own

    def gather_vocabulary(self, x: Tensor) -> Tensor:
        """x: [...] → [ranks that share the vocabulary, ...]."""
        return self._gathered(x, self.shard.attention, self.attention_group)

    def gather_sequences(self, x: Tensor) -> Tensor:
        """x: [sequences of this rank's group, ...] → [all sequences, ...]."""
        return self._gathered(x, self.shard.data, self.data_group).flatten(0, 1)

    def exchange(
        self, rows: Tensor, counts: Tensor, received: list[int] | None = None, backward: bool = False
    ) -> Exchanged:
        """Send ``counts`` [tensor ranks] of ``rows`` [rows, ...] to each tensor rank, in order.

        ``received`` is what a former exchange of as many rows got; ``backward`` sends that back.
        """
        sent: list[int] = counts.tolist()
        if received is None:
            from_all = torch.empty_like(counts)
            dist.all_to_all_single(from_all, counts, group=self.tensor_group)
            received = from_all.tolist()
        outward, inward = (received, sent) if backward else (sent, received)
        got = rows.new_empty(sum(inward), *rows.shape[1:])
        dist.all_to_all_single(got, rows.contiguous(), inward, outward, group=self.tensor_group)
        return Exchanged(got, received)

    @staticmethod
    def _gathered(x: Tensor, ranks: int, group: "dist.ProcessGroup | None") -> Tensor:
        if ranks == 1:
            return x[None]
        parts = [torch.empty_like(x) for _ in range(ranks)]
        dist.all_gather(parts, x.contiguous(), group=group)
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
