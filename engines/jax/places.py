"""Where the arrays of a point wait: on the devices, or outside them to come layer by layer."""

from typing import Any, Protocol

from engines.jax.arrays import bytes_per_chip
from engines.jax.programs import Programs
from engines.jax.prompt_batch import Prompts
from engines.jax.ways.steps import Steps
from engines.jax.work import Work
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.programs import load_parameters
from engines.weights.random import Source


class Place(Protocol):
    """``weights`` and ``cache`` are what a stage's call is given, and what it returns in the cache's place."""

    weights: Any
    cache: Any

    def prepare_prompt(self, programs: Programs, prompts: Prompts, inputs: tuple[Any, ...], timed: bool) -> None:
        """Compile what reads the prompt: (weights, cache, *inputs) → (token, logits, cache), the call ``prefill``."""
        ...

    def prepare_decode(self, programs: Programs, way: Steps, prompts: Prompts, token: Any) -> None:
        """Compile the way's :data:`engines.jax.ways.steps.Decode`, the call ``decode``."""
        ...

    def ran(self, stage: str) -> None:
        """A stage has run to its end."""
        ...

    def held_bytes(self) -> tuple[float, float]:
        """Bytes of one chip that layers' weights and the rest of the model, and that its cache, take."""
        ...

    def most_copied_bytes(self) -> int | None:
        """The most that a measurement of the memory may copy; None is any number."""
        ...

    def details(self, stages: list[str]) -> dict[str, Any]:
        """What a row says of the last runs of some stages."""
        ...

    def close(self) -> None:
        """Free all of it."""
        ...


class OnDevices:
    """All arrays are on the devices; a stage is one program."""

    def __init__(self, work: Work, source: Source) -> None:
        self.work = work
        self.weights: Any = load_parameters(work.plan, work.mesh, source)
        self.cache: Any = make_cache(work.plan, work.mesh)

    def prepare_prompt(self, programs: Programs, prompts: Prompts, inputs: tuple[Any, ...], timed: bool) -> None:
        """See :class:`Place`."""
        arguments = (self.weights, self.cache, *inputs)
        programs.calls["prefill"] = programs.add("prefill", prompts.prefill, arguments, timed)

    def prepare_decode(self, programs: Programs, way: Steps, prompts: Prompts, token: Any) -> None:
        """See :class:`Place`."""
        arguments = (*way.given(self.weights, self.cache), token, *way.start(prompts))
        programs.calls["decode"] = programs.add("decode", way.whole(), arguments, True)

    def ran(self, stage: str) -> None:
        """See :class:`Place`."""

    def held_bytes(self) -> tuple[float, float]:
        """See :class:`Place`."""
        return bytes_per_chip(self.weights), bytes_per_chip(self.cache)

    def most_copied_bytes(self) -> int | None:
        """See :class:`Place`."""
        return None

    def details(self, stages: list[str]) -> dict[str, Any]:
        """See :class:`Place`."""
        del stages
        return {}

    def close(self) -> None:
        """See :class:`Place`."""


def place_of(work: Work, source: Source) -> Place:
    """Where the point wants its arrays, made there.

    Raises:
        ShardbenchError: a file of layers cannot be written.
    """
    if not work.point.offloads:
        return OnDevices(work, source)
    from engines.jax.offload.place import LayerByLayer

    return LayerByLayer(work, source)
