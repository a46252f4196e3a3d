"""The layers of a rank's stage with their keys and values, wherever they wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch

from engines.core.layer_kind import LayerKind
from engines.torch.attention import Cache
from engines.torch.cache import cache_shapes, make_cache
from engines.torch.offload.cache import CacheOnDevice, WaitingCache
from engines.torch.offload.stream import StreamedLayers
from engines.torch.offload.weights import WaitingWeights, WeightsOnDevice
from engines.torch.parameters import DTYPES, LayerParameters, ParameterLoader, Parameters
from engines.torch.sequences import Equal
from engines.torch.shard import Shard

if TYPE_CHECKING:
    from engines.torch.job import Job


class Layers(Protocol):
    """What a pass runs through. Bytes are those on the device."""

    logs: dict[str, Any]
    """Stage → :meth:`engines.offload.events.Log.summary` of its last run, where layers are streamed."""

    @property
    def weights_bytes(self) -> int:
        """What the layers' weights take, beside those that :class:`Parameters` hold."""
        ...

    @property
    def cache_bytes(self) -> int:
        """What keys and values take."""
        ...

    def of(self, rows: slice) -> Iterator[tuple[LayerParameters, Cache]]:
        """Each layer with the cache of a micro-batch, for one pass, within :meth:`running`."""
        ...

    def running(self, stage: str, numbers: Sequence[int | None]) -> AbstractContextManager[None]:
        """Within it passes of the prompt (None) and of these steps run, each for all micro-batches."""
        ...

    def close(self) -> None:
        """Remove what was written for this rank alone."""
        ...


class LayersOnDevice:
    """All of them."""

    def __init__(self, parameters: Parameters, sequences: Equal, cache: Sequence[Cache]) -> None:
        self.parameters, self.sequences, self.cache = parameters, sequences, cache
        self.logs: dict[str, Any] = {}
        self.weights_bytes, self.cache_bytes = 0, sum(each.nbytes for layer in cache for each in layer)

    def of(self, rows: slice) -> Iterator[tuple[LayerParameters, Cache]]:
        """See :class:`Layers`."""
        return zip(self.parameters.layers, self.sequences.cache(self.cache, rows), strict=True)

    def running(self, _stage: str, _numbers: Sequence[int | None]) -> AbstractContextManager[None]:
        """See :class:`Layers`."""
        return nullcontext()

    def close(self) -> None:
        """See :class:`Layers`."""


def loaded(job: Job, shard: Shard, device: torch.device) -> Parameters:
    """A rank's parameters on its device, without layers where these wait elsewhere."""
    loader = ParameterLoader(shard, job.source(), device, job.point.weight_dtype, job.point.act_dtype)
    return loader.load(layers=job.point.offload == "none" or device.type == "meta")


def layers_of(
    job: Job,
    shard: Shard,
    device: torch.device,
    parameters: Parameters,
    sequences: Equal,
    micro_batches: Sequence[slice],
) -> Layers:
    """The layers of a rank; on the meta device, where nothing waits, all of them.

    Raises:
        ShardbenchError: the folder of offloaded layers cannot be written.
    """
    point, dtype = job.point, DTYPES[job.point.kv_dtype]
    rolls = point.lengths == "equal"
    kinds = [shard.model.layer_kinds[number] for number in shard.layers]
    every = slice(0, micro_batches[-1].stop)

    def on_device() -> list[Cache]:
        return make_cache(shard, *sequences.cache_size(every), dtype, device, rolls)

    def shapes(kind: LayerKind, rows: slice) -> list[tuple[int, ...]]:
        return cache_shapes(shard, kind, *sequences.cache_size(rows), rolls)

    if device.type == "meta" or not job.point.offloads:
        return LayersOnDevice(parameters, sequences, on_device())
    return StreamedLayers(
        WeightsOnDevice(parameters.layers) if point.offload == "none" else WaitingWeights(job, shard, device),
        CacheOnDevice(sequences, on_device())
        if point.offload_kv == "none"
        else WaitingCache(sequences, kinds, micro_batches, shapes, dtype, device),
        len(kinds),
        micro_batches,
        device,
    )
