"""A point whose layers' weights are not on the devices, compiled and loaded."""

import time
from collections.abc import Mapping
from typing import Any, Final

import jax
import numpy as np
from jax.sharding import Mesh

from engines.core.point import Point
from engines.host.resident import peak_resident_bytes
from engines.jax.devices import compiler_options
from engines.jax.offload.passes import CompiledPass, StreamedRun
from engines.jax.offload.programs import layer_pass
from engines.jax.offload.store import layers_of, resident_parameters
from engines.jax.peaks import measured_peaks
from engines.jax.program import JaxProgram, bytes_per_chip
from engines.jax.settings import Settings
from engines.offload.events import Log
from engines.offload.pipeline import BUFFERS
from engines.transformer.params.parameters import abstract_parameters
from engines.transformer.params.quantize import stored_bytes
from engines.transformer.params.tree import Parameters
from engines.transformer.partition.plan import Plan
from engines.weights.random import Source

TOLD_LAYERS: Final = 12
"""A row keeps the times of so many layers, the last of its last run."""
MOST_COPIED_BYTES: Final = 1 << 26
"""Of the copy that measures a host's memory: beyond its caches, and little beside a layer."""


class OffloadedProgram(JaxProgram):
    """As :class:`engines.jax.program.JaxProgram`, with a program for each kind of layer, driven from the host."""

    def __init__(
        self, point: Point, plan: Plan, mesh: Mesh, settings: Settings, source: Source, tolerance: float
    ) -> None:
        self.run = StreamedRun(
            layers=layers_of(point, plan, mesh, settings, source),
            kinds=[stack.kind for stack in plan.stacks],
            log=Log(),
        )
        self.logs: dict[str, Mapping[str, Any]] = {}
        self.temporary_bytes = 0.0
        try:
            super().__init__(point, plan, mesh, settings, source, tolerance)
        except BaseException:
            self.run.layers.close()
            raise

    def _load(self) -> Parameters:
        return resident_parameters(self.plan, self.mesh, self.source)

    def _compile(self, name: str, function: Any, arguments: tuple[Any, ...], timed: bool) -> None:
        del function, arguments
        start = time.perf_counter()
        made = layer_pass(self.point, self.plan, self.mesh, self.settings, name)
        options = compiler_options(self.plan, self.mesh)
        lowered = {each: program.lower(*made.arguments[each]) for each, program in made.programs()}
        compiled = {each: program.compile(options) for each, program in lowered.items()}
        programs = CompiledPass(
            embed=compiled["embed"],
            layers={kind: compiled[f"layer {number}"] for number, kind in enumerate(made.layers)},
            output=compiled["output"],
        )
        self.compiled[name] = compiled
        positions = [self._replicated(np.asarray(each, np.int32)) for each in self._positions(name)]
        if name == "prefill":
            self.calls[name] = lambda weights, cache, tokens: self.run.prefill(
                programs, weights, cache, tokens, positions[0]
            )
        else:
            self.calls[name] = lambda weights, cache, token, _: self.run.decode(
                programs, weights, cache, token, positions
            )
        if timed:
            self.compile_s += time.perf_counter() - start
            self.timed_texts |= {f"{name} {each}": program.as_text() for each, program in lowered.items()}

    def _positions(self, name: str) -> range:
        first = self.point.input_len
        return range(1) if name == "prefill" else range(first, first + self.point.decode_steps)

    def _prefill(self) -> None:
        super()._prefill()
        self._kept("prefill")

    def _decode(self) -> None:
        super()._decode()
        self._kept("decode")

    def _kept(self, stage: str) -> None:
        """The stage's last run, told as a row holds it."""
        self.logs[stage] = self.run.log.summary(TOLD_LAYERS)

    def _peaks(self) -> tuple[float, float] | None:
        return measured_peaks(self.mesh, self.plan.act_dtype, self._product(), MOST_COPIED_BYTES)

    def _memory(self) -> dict[str, float | None]:
        """The resident parameters and two layers; what the programs take beside arguments is the largest of theirs."""
        layers = abstract_parameters(self.plan, self.mesh).layers
        largest = max(
            sum(stored_bytes(each.sharding.shard_shape(each.shape), each.dtype) for each in jax.tree.leaves(layer))
            for layer in layers
        )
        weights, cache = bytes_per_chip(self.weights) + BUFFERS * largest, bytes_per_chip(self.cache)
        stages = [program for stage in self.stages for program in self.compiled[stage.name].values()]
        temporary = max(float(each.memory_analysis().temp_size_in_bytes) for each in stages)
        return {
            "weights_bytes": weights,
            "kv_cache_bytes": cache,
            "activations_bytes": temporary,
            "peak_hbm_bytes": weights + cache + temporary,
        }

    def _details(self) -> dict[str, Any]:
        runs = {each.name: self.logs[each.name] for each in self.stages}
        return {**super()._details(), "offload": runs, "peak_resident_bytes": peak_resident_bytes()}

    def close(self) -> None:
        """Free the devices' memory, and where the layers waited."""
        super().close()
        self.run.layers.close()
