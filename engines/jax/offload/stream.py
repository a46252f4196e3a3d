"""Passes over all layers, which come one ahead of the computation: weights, caches, or both."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import jax

from engines.core.layer_kind import LayerKind
from engines.jax.offload.caches import Coming, HeldCaches, HostCaches
from engines.jax.offload.layers import Layers
from engines.jax.offload.written import First
from engines.jax.programs import Programs
from engines.offload.events import Log
from engines.offload.pipeline import BUFFERS, fetched_ahead
from engines.transformer.layer_programs import LayerPass, Reading
from engines.transformer.layers.kv_cache import Cache, Caches
from engines.transformer.params.tree import Parameters

Before = Callable[[int, Cache], Cache]
"""(layer, its cache) → the cache that a pass of the layer is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPass:
    """The compiled programs of a :class:`engines.transformer.layer_programs.LayerPass` of ``time`` tokens a row."""

    embed: Any
    layers: Mapping[LayerKind, Any]
    output: Any
    time: int

    @classmethod
    def of(cls, programs: Programs, name: str, reading: Reading, made: LayerPass, timed: bool) -> "CompiledPass":
        """Compiled as programs of the stage with which ``name`` begins."""
        calls = {
            part: programs.add(f"{name} {part}", program, made.arguments[part], timed)
            for part, program in made.programs()
        }
        layers = {kind: calls[f"layer {number}"] for number, kind in enumerate(made.layers)}
        return cls(embed=calls["embed"], layers=layers, output=calls["output"], time=reading.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """``layers`` and ``caches`` are where weights and caches wait; without ``caches`` those are on the devices.

    ``kinds`` has each layer's, of which the ``first`` stay on the devices; ``log`` holds a stage's events.
    """

    layers: Layers
    caches: HostCaches | None
    kinds: Sequence[LayerKind]
    first: int
    log: Log

    @contextmanager
    def opened(self, passes: int, caches: Caches, *, fresh: bool = False, here: bool = False) -> Iterator["Run"]:
        """A run of up to so many passes, which are added to the log; ``fresh``: they read nothing that a cache holds.

        ``here``: ``caches`` are all layers', on the devices, wherever others wait.
        """
        order = [layer for _ in range(passes) for layer in range(self.first, len(self.kinds))]
        with ExitStack() as stack:
            fetch = stack.enter_context(self.layers.opened(order, self.log))
            coming: Coming = HeldCaches(caches)
            if self.caches is not None and not here:
                coming = self.caches.coming(self.log, caches, fresh=fresh)

            def both(layer: int) -> tuple[Any, Cache]:
                found, cache = fetch(layer), coming.fetch(layer)
                self.log.add("copy", layer, found.start_s, found.sent_bytes + cache.sent_bytes)
                return found.arrays, cache.arrays

            # Held caches have no writer to wait for: what a layer wrote is there if another was computed since.
            fetched = fetched_ahead(order, both, self.log, self.held_layers)
            stack.callback(fetched.close)
            stack.callback(coming.settle)  # first: a fetch may wait for a write that does not come
            yield Run(self.kinds, self.layers.first[: self.first], fetched, coming)

    def summary(self, last: int) -> dict[str, Any]:
        """What a row keeps of the last run: its log, and how many of the bytes copied were those of caches."""
        of_caches = {} if self.caches is None else {"cache_copy_bytes": self.caches.copied_bytes}
        return {**self.log.summary(last), **of_caches}

    @property
    def held_layers(self) -> int:
        """Layers on the devices at once, of what comes and goes."""
        return min(BUFFERS, len(self.kinds) - self.first)


@dataclass(frozen=True, slots=True)
class Run:
    """Passes of one run, in the order in which their layers are fetched behind the ``first``, which are there."""

    kinds: Sequence[LayerKind]
    first: Sequence[Any]
    fetched: Iterator[tuple[int, Any]]
    coming: Coming

    def forward(
        self,
        programs: CompiledPass,
        resident: Parameters,
        tokens: Any,
        where: Any,
        asked: Any = None,
        *,
        first: First = None,
        before: Before | None = None,
    ) -> Any:
        """What the pass returns of ``asked``, nothing where that is None. ``where`` and ``asked`` are its reading's.

        ``first`` is the position from which on sequences write, and ``before`` puts a shared prefix into caches.
        """
        x = programs.embed(resident, tokens, where)
        for layer, kind in enumerate(self.kinds):
            if layer < len(self.first):
                parameters, cache = self.first[layer], self.coming.fetch(layer).arrays
            else:
                _, (parameters, cache) = next(self.fetched)
            if before is not None:
                cache = before(layer, cache)
            x, cache = programs.layers[kind](parameters, cache, x, where)
            # The pipeline reuses a layer's room once asked for the next: it must have been computed by then.
            jax.block_until_ready((x, cache))
            self.coming.computed(layer, cache, first, programs.time, whole=before is not None)
            del parameters, cache
        return None if asked is None else programs.output(resident, x, asked)
