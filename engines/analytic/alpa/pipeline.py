"""Stages of a pipeline over parts of a slice, each part with its own shardings of a layer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from engines.analytic.alpa.ilp import best_choice
from engines.analytic.alpa.layer import graph_of
from engines.analytic.alpa.roles import having
from engines.analytic.alpa.stages import Part, best_stages, parts_of
from engines.analytic.exits import BY_LAYER
from engines.analytic.grid import Grid
from engines.core.errors import OutOfMemory
from engines.core.layout import axes_size
from engines.core.model import Model
from engines.core.slice import MeshShape

MOST_MICRO_BATCHES: Final = 16


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages of least time: each its layers and its mesh. ``seconds`` are of a pass of ``micro_batches``."""

    stages: tuple[tuple[int, MeshShape], ...]
    micro_batches: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "stages": [{"layers": layers, "mesh_shape": list(mesh)} for layers, mesh in self.stages],
            "micro_batches": self.micro_batches,
            "pass_s": self.seconds,
        }


def best_pipeline(
    model: Model, grid: Grid, mesh: MeshShape, *, prefill: bool, one_stage_s: float, beside_s: float
) -> Pipeline:
    """The fastest pipeline, of one stage or more: ``one_stage_s`` is a pass of the whole slice as one.

    ``beside_s`` is what a pass takes whatever its stages.

    Micro-batches are powers of two that divide the batch, up to :data:`MOST_MICRO_BATCHES`.
    """
    layers, chips, batch = model.num_layers, axes_size("xyz", mesh), int(np.ravel(grid.batch)[0])
    best = Pipeline(((layers, mesh),), 1, one_stage_s)
    count = 1
    while count <= MOST_MICRO_BATCHES and batch % count == 0:
        parts = [
            _Cut(model, grid, each, prefill, count, mesh)
            for each in parts_of(mesh, in_order=bool(np.all(grid.gpu)))[1:]
        ]
        if parts and _least_s(parts, layers, chips, count) + beside_s < best.seconds:
            found = [(part, each.mesh) for each in parts if (part := each.solved()) is not None]
            every = [part for part, _ in found]
            stages = best_stages(layers, chips, every, count, below_s=best.seconds - beside_s)
            if stages is not None:
                cut = tuple((number, found[index][1]) for number, index in stages.stages)
                best = Pipeline(cut, count, stages.seconds + beside_s)
        count *= 2
    return best


def _least_s(parts: Sequence["_Cut"], layers: int, chips: int, micro_batches: int) -> float:
    """No pipeline of these parts takes less: Σ tᵢ of the fastest layers, and max tᵢ ≥ Σ tᵢ·chipsᵢ / chips."""
    slowest = min(each.least_s * each.chips for each in parts) / chips
    return layers * (min(each.least_s for each in parts) + (micro_batches - 1) * slowest)


class _Cut:
    """A part of the slice for its chips' share of the layers. An axis that is cut is a line."""

    def __init__(
        self, model: Model, grid: Grid, mesh: MeshShape, prefill: bool, micro_batches: int, whole: MeshShape
    ) -> None:
        self.model, self.mesh, self.chips = model, mesh, axes_size("xyz", mesh)
        self.of_all = axes_size("xyz", whole)
        self.share = -(-model.num_layers * self.chips // self.of_all)
        arrays = {axis: np.full(1, float(size)) for axis, size in zip("xyz", mesh, strict=True)}
        for axis, here, there in zip("xyz", mesh, whole, strict=True):
            if here != there:
                arrays[f"links_{axis}"] = np.full(1, float(here > 1))
        of_all = self.share / grid.layers
        layers = {each: getattr(grid, each) * of_all for each in BY_LAYER}
        self.grid = replace(grid, **arrays, **layers, batch=grid.batch / micro_batches)
        self.tokens = self._value("batch") * (self._value("input_len") if prefill else 1.0)
        self.graph = graph_of(model, self.grid, mesh, prefill=prefill, micro_batches=micro_batches)
        self.inner = self.graph.without("table")

    def _value(self, name: str) -> float:
        return float(np.ravel(getattr(self.grid, name))[0])

    @property
    def least_s(self) -> float:
        """No layer takes less."""
        return self.inner.least_s / self.share

    def solved(self) -> Part | None:
        """The part with the best shardings of those layers; None where none fits."""
        try:
            choice = best_choice(self.graph)
        except OutOfMemory:
            return None
        layer = {name: roles for name, roles in choice.items() if name != "table"}
        layers_s = self.inner.seconds(layer)
        held = self.inner.held_bytes(layer) - self.inner.constant_bytes
        room = self.graph.usable_bytes - (self.graph.peak_bytes(choice) - held)
        split = axes_size(having(choice["residual"], "tc"), self.mesh)
        sent = self.tokens * self._value("d_model") * self._value("act_bytes") / split
        return Part(
            chips=self.chips,
            layer_s=layers_s / self.share,
            first_s=0.0,
            last_s=self.graph.seconds(choice) - layers_s,
            handed_s=self._handed_s(sent),
            most_layers=min(self.model.num_layers, int(room / (held / self.share) * (1 + 1e-9))),
        )

    def _handed_s(self, sent: float) -> float:
        """Seconds in which every chip sends so many bytes to the next stage: over a link, a switch, or the network."""
        value = self._value
        link = value("link_bytes_per_s") * value("link_efficiency")
        if not value("gpu"):
            return value("collective_s") + value("hop_s") + sent / link
        inside = self.of_all <= value("node_size")
        return value("stage_s") + sent / (
            link if inside else value("network_bytes_per_s") * value("network_efficiency")
        )
