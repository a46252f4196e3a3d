"""Arrays of layers that wait outside the devices and come one layer ahead of the computation."""

from collections.abc import Mapping
from typing import Any, Final

from engines.host.resident import peak_resident_bytes
from engines.jax.arrays import bytes_per_chip, described_bytes_per_chip
from engines.jax.offload.caches import HostCaches
from engines.jax.offload.prompt import streamed_prompt
from engines.jax.offload.store import layers_of, resident_parameters
from engines.jax.offload.stream import Stream
from engines.jax.programs import Programs
from engines.jax.prompt_batch import Prompts
from engines.jax.ways.steps import Steps
from engines.jax.work import Work
from engines.offload.events import Log
from engines.transformer.layers.kv_cache import abstract_cache, empty_arrays
from engines.transformer.params.parameters import abstract_parameters
from engines.weights.random import Source

TOLD_LAYERS: Final = 12
"""A row keeps the times of so many layers, the last of its last run."""
MOST_COPIED_BYTES: Final = 1 << 26
"""Of the copy that measures a host's memory: beyond its caches, and little beside a layer."""


class LayerByLayer:
    """Implements :class:`engines.jax.places.Place` with a program for each kind of layer, driven from the host.

    ``weights`` are those that every pass reads at its ends, ``cache`` is that of the layers whose cache is there.
    """

    def __init__(self, work: Work, source: Source) -> None:
        """Make them where the point wants them to wait.

        Raises:
            ShardbenchError: ``offload_dir`` cannot be written.
        """
        self.work, plan, mesh = work, work.plan, work.mesh
        self.logs: dict[str, Mapping[str, Any]] = {}
        on_host = work.point.offload_kv == "host"
        layers = layers_of(work, source)
        try:
            self.weights: Any = resident_parameters(plan, mesh, source)
            described = abstract_cache(plan, mesh)
            self.cache: Any = empty_arrays(described[: work.point.staying_layers] if on_host else described)
            caches = HostCaches(plan, mesh, work.point.staying_layers) if on_host else None
        except BaseException:
            layers.close()
            raise
        kinds = [each.kind for each in plan.stacks]
        self.stream = Stream(layers=layers, caches=caches, kinds=kinds, first=work.point.staying_layers, log=Log())

    def prepare_prompt(self, programs: Programs, prompts: Prompts, inputs: tuple[Any, ...], timed: bool) -> None:
        """See :class:`engines.jax.places.Place`."""
        del inputs
        programs.calls["prefill"] = streamed_prompt(self.work, self.stream, programs, prompts, timed)

    def prepare_decode(self, programs: Programs, way: Steps, prompts: Prompts, token: Any) -> None:
        """See :class:`engines.jax.places.Place`."""
        del token
        programs.calls["decode"] = way.layered(self.stream, programs, prompts)

    def ran(self, stage: str) -> None:
        """Keep the stage's last run as a row holds it."""
        self.logs[stage] = self.stream.summary(TOLD_LAYERS)
        self.stream.log.clear()

    def held_bytes(self) -> tuple[float, float]:
        """The resident parameters, and of what comes and goes as many layers as are there at once."""
        plan, mesh, stream, first = self.work.plan, self.work.mesh, self.stream, self.work.point.staying_layers
        layers = [described_bytes_per_chip(each) for each in abstract_parameters(plan, mesh).layers]
        caches = [described_bytes_per_chip(each) for each in abstract_cache(plan, mesh)]
        if self.work.point.offload == "none":
            weights = sum(layers)
        else:
            weights = sum(layers[:first]) + (stream.held_layers + stream.layers.copies) * max(layers[first:])
        on_host = stream.caches is not None
        cache = sum(caches[:first]) + stream.held_layers * max(caches[first:]) if on_host else sum(caches)
        return bytes_per_chip(self.weights) + weights, cache

    def most_copied_bytes(self) -> int | None:
        """See :class:`engines.jax.places.Place`."""
        return MOST_COPIED_BYTES

    def details(self, stages: list[str]) -> dict[str, Any]:
        """See :class:`engines.jax.places.Place`."""
        return {"offload": {each: self.logs[each] for each in stages}, "peak_resident_bytes": peak_resident_bytes()}

    def close(self) -> None:
        """See :class:`engines.jax.places.Place`."""
        self.stream.layers.close()
        if self.stream.caches is not None:
            self.stream.caches.close()
