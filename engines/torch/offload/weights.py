"""A rank's layers in pinned host memory or in a file, each put together on the device when it is its turn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from engines.core.fingerprint import fingerprint
from engines.core.pruning import NONE
from engines.host.scratch import ScratchFolder
from engines.offload.events import Log
from engines.offload.layer_file import LayerFile, LayerWriter
from engines.offload.pipeline import BUFFERS
from engines.offload.read_ahead import STAGED, ReadAhead
from engines.torch.offload.form import Form, bytes_of, pinned
from engines.torch.parameters import LayerParameters, ParameterLoader
from engines.torch.shard import Shard
from engines.weights.checkpoint.identity import identity

if TYPE_CHECKING:
    from engines.torch.job import Job

Take = Callable[[int], AbstractContextManager[Iterator[Tensor]]]
"""Layer → its bytes, tensor by tensor, valid within the context."""


class Weights(Protocol):
    """Where the layers' weights wait."""

    device_bytes: int
    """Bytes that they take on the device, beside those of no layer."""

    def reading(self, order: Sequence[int], log: Log) -> AbstractContextManager[Take]:
        """Within it layers can be taken in ``order``."""
        ...

    def placed(self, layer: int, turn: int, parts: Iterator[Tensor]) -> tuple[LayerParameters, int]:
        """A layer on the device, and the bytes that were copied; of turns in a row :data:`BUFFERS` are valid."""
        ...

    def close(self) -> None:
        """Remove what was written for this rank alone."""
        ...


class WeightsOnDevice:
    """Nothing waits."""

    def __init__(self, layers: Sequence[LayerParameters]) -> None:
        self.layers, self.device_bytes = layers, 0

    def reading(self, _order: Sequence[int], _log: Log) -> AbstractContextManager[Take]:
        """See :class:`Weights`."""
        return nullcontext(lambda _: nullcontext(iter(())))

    def placed(self, layer: int, _turn: int, _parts: Iterator[Tensor]) -> tuple[LayerParameters, int]:
        """See :class:`Weights`."""
        return self.layers[layer], 0

    def close(self) -> None:
        """See :class:`Weights`."""


class WaitingWeights:
    """Those in host memory or in a file, of which :data:`BUFFERS` layers are on the device."""

    def __init__(self, job: Job, shard: Shard, device: torch.device) -> None:
        """Load the shard's layers one at a time to where they wait, unless they are there already.

        Raises:
            ShardbenchError: the folder cannot be written.
        """
        point, source = job.point, job.source()

        def loader(where: str) -> ParameterLoader:
            return ParameterLoader(shard, source, torch.device(where), point.weight_dtype, point.act_dtype)

        self.on_gpu = device.type == "cuda"
        self.forms = [Form.of(loader("meta").layer(number)) for number in shard.layers]
        self.host: list[list[Tensor]] = []
        self.scratch: ScratchFolder | None = None
        self.file: LayerFile | None = None
        layers = (bytes_of(loader("cpu").layer(number)) for number in shard.layers)
        if point.offload == "nvme":
            self.file = self._in_file(layers, _identity(job, shard), job.offload_dir)
        else:
            self.host = [[pinned(each, device) for each in tensors] for tensors in layers]
        room = max(form.room_bytes for form in self.forms)
        self.rooms = [torch.empty(room, dtype=torch.uint8, device=device) for _ in range(BUFFERS)]
        self.device_bytes = BUFFERS * room

    def reading(self, order: Sequence[int], log: Log) -> AbstractContextManager[Take]:
        """See :class:`Weights`."""
        if self.file is None:
            return nullcontext(lambda layer: nullcontext(iter(self.host[layer])))
        return self._from_file(self.file, order, log)

    def placed(self, layer: int, turn: int, parts: Iterator[Tensor]) -> tuple[LayerParameters, int]:
        """See :class:`Weights`."""
        return self.forms[layer].placed(self.rooms[turn % BUFFERS], parts)

    def close(self) -> None:
        """See :class:`Weights`."""
        if self.scratch is not None:
            self.scratch.close()

    @contextmanager
    def _from_file(self, file: LayerFile, order: Sequence[int], log: Log) -> Iterator[Take]:
        buffers = None
        if self.on_gpu:  # pinned memory is page-aligned: a drive writes to it, and a GPU reads it
            size = max(each.read_bytes for each in file.extents)
            page_locked = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(STAGED)]
            buffers = [memoryview(each.numpy().data) for each in page_locked]
        with ReadAhead(file, order, log, buffers) as reader:

            @contextmanager
            def take(layer: int) -> Iterator[Iterator[Tensor]]:
                staged = reader.take(layer)
                whole = torch.frombuffer(staged.payload, dtype=torch.uint8)
                try:
                    yield self.forms[layer].split(whole)
                finally:
                    del whole
                    reader.release(staged)

            yield take

    def _in_file(self, layers: Iterator[list[Tensor]], identity: str, offload_dir: str | None) -> LayerFile:
        if offload_dir is None:
            self.scratch = ScratchFolder()
            folder = self.scratch.path
        else:
            folder = Path(offload_dir).expanduser() / identity
            if (found := LayerFile.found(folder, identity)) is not None:
                return found
        writer = LayerWriter(folder, identity)
        for tensors in layers:
            writer.add([each.numpy() for each in tensors])
        return writer.close()


def _identity(job: Job, shard: Shard) -> str:
    """A digest of the values and of how they are cut: two ranks with the same have the same file."""
    weights: Any = job.seed if job.checkpoint is None else identity(Path(job.checkpoint))
    point, model = job.point, fingerprint({"model": job.point.model})
    place = (shard.tensor, shard.pipeline, shard.rank, shard.experts, shard.data)
    pruned: tuple[Any, ...] = ()
    if job.asked.pruning != NONE:
        pruned = (job.asked.pruning, fingerprint({"model": job.asked.model}), job.quality.options())
    parts = ("torch", model, point.weight_dtype, point.act_dtype, place, weights, *pruned)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
