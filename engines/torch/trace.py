"""The operations that the ranks of a point run, traced on tensors without values.

Every pipeline stage's first tensor rank is traced, since the other tensor ranks run the same operations on other
weights: the prompt if it is timed, and the first and the last decode step. A line is an ATen operation or a collective,
with the shapes, strides and dtypes of its tensors.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engines.core.digest import digest
from engines.torch.collectives import Collectives, Exchanged
from engines.torch.job import Job
from engines.torch.rank import COMPILE_OPTIONS, MOST_RECORDED, WARM_UP_RUNS, Rank
from engines.torch.shard import Shard


def program_id_of(job: Job, versions: Mapping[str, str]) -> str:
    """A digest of the traced operations of all stages, how they are run, the degrees, and ``versions``."""
    point = job.point
    degrees = point.tensor_degree, point.pipeline_degree, *job.groups
    how: Any = job.decode
    if job.decode != "eager":
        on = "cuda" if point.chip.kind == "gpu" else "cpu"
        how = [job.decode, COMPILE_OPTIONS[on] if job.decode == "compile" else {}, MOST_RECORDED, WARM_UP_RUNS]
    # What streams the layers runs beside these operations.
    where = [each for each in (point.offload, f"kv:{point.offload_kv}") if not each.endswith("none")]
    return digest(list(traced(job)), how, degrees, versions, *where)


def traced(job: Job) -> Iterator[str]:
    """One line an operation, stage by stage."""
    point = job.point
    for stage in range(point.pipeline_degree):
        yield f"stage {stage}"
        rank = TracedRank(replace(job, threads=0), stage * point.tensor_degree)
        rank.operations.lines.clear()  # those of loading it
        with torch.inference_mode(), rank.operations:
            if point.phase != "decode":
                rank.run_prompt()
            for number in sorted({0, point.decode_steps - 1} if point.decode_steps else ()):
                rank.step_at(number)
        yield from rank.operations.lines


class TracedRank(Rank):
    """A rank whose tensors have no values, whose collectives send nothing, and which compiles and records nothing."""

    def __init__(self, job: Job, rank: int) -> None:
        self.operations = Operations()
        super().__init__(job, rank, rank)

    def make_collectives(self, shard: Shard, timeout_s: float) -> Collectives:
        """Collectives that record what would be sent."""
        return TracedCollectives(shard, self.operations)

    def make_device(self, local_rank: int) -> torch.device:
        """The meta device."""
        return torch.device("meta")

    def make_ready(self, compile_first: bool) -> None:
        """Nothing: the operations are those that would be compiled or recorded."""


class Operations(TorchDispatchMode):
    """Records every operation while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lines: list[str] = []

    def note(self, name: str, *values: Any) -> None:
        """Add a line."""
        self.lines.append(f"{name}({', '.join(map(_line_of, tree_leaves(values)))})")

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        self.note(str(func), args, sorted((key, value) for key, value in given.items() if key != "device"))
        return func(*args, **given)


class TracedCollectives(Collectives):
    """Sends nothing; results have the shapes that they would have."""

    def __init__(self, shard: Shard, operations: Operations) -> None:
        self.shard, self.operations = shard, operations

    def all_reduce(self, x: Tensor) -> Tensor:
        """See :class:`Collectives`."""
        if self.shard.tensor > 1:
            self.operations.note("all_reduce", x)
        return x

    def reduce_attention(self, x: Tensor) -> Tensor:
        """See :class:`Collectives`."""
        if self.shard.attention > 1:
            self.operations.note("all_reduce", x)
        return x

    def gather_tokens(self, x: Tensor) -> Tensor:
        """See :class:`Collectives`."""
        self.operations.note("gather_tokens", x)
        return x[None].expand(self.shard.tensor, *x.shape).flatten(0, 1)

    def reduce_scatter_tokens(self, x: Tensor) -> Tensor:
        """See :class:`Collectives`."""
        self.operations.note("reduce_scatter_tokens", x)
        return self.own_tokens(x)

    def gather_vocabulary(self, x: Tensor) -> Tensor:
        """See :class:`Collectives`."""
        if self.shard.attention > 1:
            self.operations.note("all_gather", x)
        return x[None].expand(self.shard.attention, *x.shape)

    def gather_sequences(self, x: Tensor) -> Tensor:
        """See :class:`Collectives`."""
        self.operations.note("gather_sequences", x)
        return x[None].expand(self.shard.data, *x.shape).flatten(0, 1)

    def exchange(
        self, rows: Tensor, counts: Tensor, received: list[int] | None = None, backward: bool = False
    ) -> Exchanged:
        """See :class:`Collectives`; every rank is sent as many rows as it sends."""
        self.operations.note("exchange", rows)
        return Exchanged(rows, [])

    def send_activations(self, x: Tensor) -> None:
        """See :class:`Collectives`."""
        self.operations.note("send_activations", x)

    def receive_activations(self, x: Tensor) -> Tensor:
        """See :class:`Collectives`."""
        self.operations.note("receive_activations", x)
        return x

    def send_tokens(self, tokens: Tensor) -> None:
        """See :class:`Collectives`."""
        self.operations.note("send_tokens", tokens)

    def receive_tokens(self, tokens: Tensor) -> Tensor:
        """See :class:`Collectives`."""
        self.operations.note("receive_tokens", tokens)
        return tokens

    def flush(self) -> None:
        """See :class:`Collectives`."""
        self.operations.note("flush")


def _line_of(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype}{list(value.shape)}{list(value.stride())}"
    return "device" if isinstance(value, torch.device) else str(value)
