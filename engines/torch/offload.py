"""A rank's layers in pinned host memory or in a file, each sent to the device while the one before computes.

On a GPU a copy stream of its own sends them; on a CPU, whose device memory is the host's, a thread copies them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from engines.core.fingerprint import fingerprint
from engines.core.layer_kind import LayerKind
from engines.host.scratch import ScratchFolder
from engines.offload.events import Log
from engines.offload.layer_file import LayerFile, LayerWriter
from engines.offload.pipeline import BUFFERS, fetched_ahead
from engines.offload.read_ahead import STAGED, ReadAhead
from engines.torch.parameters import LayerParameters, Matrix, ParameterLoader, Parameters
from engines.torch.peaks import wait_for
from engines.torch.shard import Shard
from engines.weights.checkpoint.identity import identity

if TYPE_CHECKING:
    from engines.torch.rank import Job

ALIGNED_BYTES: Final = 256
"""A tensor of a room begins at a multiple of this many bytes, as CUDA's allocator has it."""
TOLD_LAYERS: Final = 12
"""A row keeps the times of so many layers, the last of its last run."""


@dataclass(frozen=True, slots=True)
class Form:
    """A layer's tensors without their values: name → (shape, dtype), in the order in which they lie."""

    kind: LayerKind
    tensors: tuple[tuple[str, str, torch.Size, torch.dtype], ...]

    @property
    def room_bytes(self) -> int:
        """Bytes on a device, each tensor aligned."""
        return sum(_aligned(size.numel() * dtype.itemsize) for _, _, size, dtype in self.tensors)

    def placed(self, room: Tensor, parts: Iterator[Tensor]) -> tuple[LayerParameters, int]:
        """The layer in ``room`` [bytes], copied from the bytes of each tensor; and how many bytes that were."""
        made, at, sent = LayerParameters(self.kind, {}, {}), 0, 0
        for (owner, name, size, dtype), part in zip(self.tensors, parts, strict=True):
            own = room[at : at + part.numel()]
            own.copy_(part, non_blocking=True)
            at, sent = at + _aligned(part.numel()), sent + part.numel()
            tensor = own.view(dtype).view(size)
            if owner == "weight":
                made.matrices[name] = Matrix(tensor)
            elif owner == "scale":
                made.matrices[name].scale = tensor
            else:
                made.vectors[name] = tensor
        return made, sent


class StreamedLayers:
    """A rank's layers, one after another in each pass, of which two are on the device."""

    def __init__(self, job: Job, shard: Shard, device: torch.device) -> None:
        """Load the shard's layers one at a time into host memory or into a file, unless it is there already.

        Raises:
            ShardbenchError: the folder cannot be written.
        """
        point, source = job.point, job.source()

        def loader(where: str) -> ParameterLoader:
            return ParameterLoader(shard, source, torch.device(where), point.weight_dtype, point.act_dtype)

        self.device, self.log, self.logs = device, Log(), dict[str, Any]()
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.forms = [_form(loader("meta").layer(number)) for number in shard.layers]
        self.host: list[list[Tensor]] = []
        self.scratch: ScratchFolder | None = None
        self.file: LayerFile | None = None
        layers = (_bytes_of(loader("cpu").layer(number)) for number in shard.layers)
        if point.offload == "nvme":
            self.file = self._in_file(layers, _identity(job, shard), job.offload_dir)
        else:
            self.host = [[_pinned(each, device) for each in tensors] for tensors in layers]
        room = max(form.room_bytes for form in self.forms)
        self.rooms = [torch.empty(room, dtype=torch.uint8, device=device) for _ in range(BUFFERS)]
        self.passes: Iterator[tuple[int, LayerParameters]] = iter(())

    @property
    def kinds(self) -> list[LayerKind]:
        """Of each layer."""
        return [form.kind for form in self.forms]

    def __iter__(self) -> Iterator[LayerParameters]:
        """The layers of the next pass of :meth:`running`; the caller's work on one is awaited before its room is."""
        for _ in self.forms:
            _, parameters = next(self.passes)
            yield parameters
            wait_for(self.device)

    @contextmanager
    def running(self, stage: str, passes: int) -> Iterator[None]:
        """``passes`` passes in a row, whose events are those of ``stage``."""
        order = [layer for _ in range(passes) for layer in range(len(self.forms))]
        self.log.clear()
        with self._fetch(order) as fetch:
            run = fetched_ahead(order, fetch, self.log)
            self.passes = run
            yield
            next(run, None)  # the last layer has been computed
            run.close()
        self.logs[stage] = self.log.summary(TOLD_LAYERS)

    def close(self) -> None:
        """Remove what was written for this rank alone."""
        if self.scratch is not None:
            self.scratch.close()

    def _fetch(self, order: Sequence[int]) -> AbstractContextManager[Callable[[int], LayerParameters]]:
        turns = iter(range(len(order)))

        def sent(layer: int, parts: Iterator[Tensor]) -> LayerParameters:
            start_s, room = perf_counter(), self.rooms[next(turns) % BUFFERS]
            with torch.inference_mode(), torch.cuda.stream(self.stream) if self.stream else nullcontext():
                made, count = self.forms[layer].placed(room, parts)
            if self.stream is not None:
                self.stream.synchronize()
            self.log.add("copy", layer, start_s, count)
            return made

        if self.file is None:
            return nullcontext(lambda layer: sent(layer, iter(self.host[layer])))
        return self._from_file(self.file, order, sent)

    @contextmanager
    def _from_file(
        self, file: LayerFile, order: Sequence[int], sent: Callable[[int, Iterator[Tensor]], LayerParameters]
    ) -> Iterator[Callable[[int], LayerParameters]]:
        buffers = None
        if self.stream is not None:  # pinned memory is page-aligned: a drive writes to it, and a GPU reads it
            size = max(each.read_bytes for each in file.extents)
            pinned = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(STAGED)]
            buffers = [memoryview(each.numpy().data) for each in pinned]
        with ReadAhead(file, order, self.log, buffers) as reader:

            def fetch(layer: int) -> LayerParameters:
                staged = reader.take(layer)
                whole = torch.frombuffer(staged.payload, dtype=torch.uint8)
                try:
                    return sent(layer, _split(whole, self.forms[layer]))
                finally:
                    del whole
                    reader.release(staged)

            yield fetch

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


def loaded(job: Job, shard: Shard, device: torch.device) -> tuple[Parameters, StreamedLayers | None]:
    """A rank's parameters on its device, and its layers where these are not: offloaded ones, not on the meta device."""
    point = job.point
    loader = ParameterLoader(shard, job.source(), device, point.weight_dtype, point.act_dtype)
    if point.offload == "none" or device.type == "meta":
        return loader.load(), None
    return loader.load(layers=False), StreamedLayers(job, shard, device)


def running(streamed: StreamedLayers | None, stage: str, passes: int) -> AbstractContextManager[None]:
    """:meth:`StreamedLayers.running`, of nothing where all layers are on the device."""
    return nullcontext() if streamed is None else streamed.running(stage, passes)


def rooms_bytes(streamed: StreamedLayers | None) -> int:
    """Bytes that two layers take on the device."""
    return 0 if streamed is None else sum(each.nbytes for each in streamed.rooms)


def logs_of(streamed: StreamedLayers | None) -> dict[str, Any]:
    """Stage → :meth:`engines.offload.events.Log.summary` of its last run."""
    return {} if streamed is None else streamed.logs


def _split(whole: Tensor, form: Form) -> Iterator[Tensor]:
    at = 0
    for _, _, size, dtype in form.tensors:
        count = size.numel() * dtype.itemsize
        yield whole[at : at + count]
        at += count


def _pinned(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory() if device.type == "cuda" else tensor


def _aligned(size: int) -> int:
    return -(-size // ALIGNED_BYTES) * ALIGNED_BYTES


def _identity(job: Job, shard: Shard) -> str:
    """A digest of the values and of how they are cut: two ranks with the same have the same file."""
    weights: Any = job.seed if job.checkpoint is None else identity(Path(job.checkpoint))
    point, model = job.point, fingerprint({"model": job.point.model})
    place = (shard.tensor, shard.pipeline, shard.rank, shard.experts, shard.data)
    parts = ("torch", model, point.weight_dtype, point.act_dtype, place, weights)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _named(layer: LayerParameters) -> list[tuple[str, str, Tensor]]:
    """Every tensor of a layer: what it is, whose, and itself."""
    listed = [
        ("weight" if part is matrix.weight else "scale", name, part)
        for name, matrix in layer.matrices.items()
        for part in ([matrix.weight] if matrix.scale is None else [matrix.weight, matrix.scale])
    ]
    return listed + [("vector", name, vector) for name, vector in layer.vectors.items()]


def _form(layer: LayerParameters) -> Form:
    return Form(layer.kind, tuple((owner, name, each.shape, each.dtype) for owner, name, each in _named(layer)))


def _bytes_of(layer: LayerParameters) -> list[Tensor]:
    return [each.contiguous().flatten().view(torch.uint8) for _, _, each in _named(layer)]
