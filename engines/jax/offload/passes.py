"""Prefill and decode run layer by layer, the next layer being fetched while one computes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from engines.core.layer_kind import LayerKind
from engines.jax.offload.layers import Layers
from engines.offload.events import Log
from engines.offload.pipeline import fetched_ahead
from engines.transformer.layers.kv_cache import Caches
from engines.transformer.params.tree import Parameters
from engines.transformer.programs import KEPT_LOGITS


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPass:
    """The compiled programs of a :class:`engines.transformer.layer_programs.LayerPass`."""

    embed: Any
    layers: Mapping[LayerKind, Any]
    output: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedRun:
    """Runs ``steps`` passes, each over all layers. ``kinds`` has each layer's; ``log`` holds the last run's events."""

    layers: Layers
    kinds: Sequence[LayerKind]
    log: Log

    def prefill(
        self, programs: CompiledPass, resident: Parameters, cache: Caches, tokens: Array, position: Array
    ) -> tuple[Array, Array, Caches]:
        """As :func:`engines.transformer.programs.make_prefill`'s program."""
        written = list(cache)
        (found,) = self._passes(programs, resident, written, [position], lambda _: tokens)
        return *found, tuple(written)

    def decode(
        self, programs: CompiledPass, resident: Parameters, cache: Caches, token: Array, positions: Sequence[Array]
    ) -> tuple[Array, Array, Caches]:
        """As :func:`engines.transformer.programs.make_decode`'s program; ``positions`` has each step's."""
        written, tokens, kept = list(cache), [token], list[Array]()

        def read(step: int) -> Array:
            return tokens[step][:, None]

        for following, scores in self._passes(programs, resident, written, positions, read):
            tokens.append(following)
            kept = [*kept, scores][-KEPT_LOGITS:]
        return jnp.stack(tokens[1:]), jnp.stack(kept), tuple(written)

    def _passes(
        self, programs: CompiledPass, resident: Parameters, cache: list[Any], positions: Sequence[Array], read: Any
    ) -> Iterator[tuple[Array, Array]]:
        """(next token, logits) of each pass. The first layer of a pass is fetched while the one before ends."""
        self.log.clear()
        count = len(self.kinds)
        order = [layer for _ in positions for layer in range(count)]
        x: Any = None
        with self.layers.opened(order, self.log) as fetch:
            for turn, (layer, parameters) in enumerate(fetched_ahead(order, fetch, self.log)):
                position = positions[turn // count]
                if layer == 0:
                    x = programs.embed(resident, read(turn // count), position)
                x, cache[layer] = programs.layers[self.kinds[layer]](parameters, cache[layer], x, position)
                # The pipeline reuses a layer's room once asked for the next: it must have been computed by then.
                jax.block_until_ready(x)
                del parameters
                if layer == count - 1:
                    token, scores = programs.output(resident, x, position)
                    yield token, scores
