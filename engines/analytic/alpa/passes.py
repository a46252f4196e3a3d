"""The forward passes of a point as graphs, and what a choice of shardings takes in each."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from engines.analytic.alpa.gpu_costs import costs_of
from engines.analytic.alpa.graph import Choice, Graph, Terms
from engines.analytic.alpa.layer import graph_of
from engines.analytic.grid import Grid, grid_of
from engines.core.point import Point

KEPT: Final = ("table", "experts")
"""Operators that hold their weights themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What a choice takes: seconds of one forward pass, of a prompt or a decode step, and bytes of a chip.

    ``times`` is how often the pass counts in a plan: a decode step in phase=generate as often as it runs, else once.
    ``fixed_s`` is of the layers, ``beside_s`` what a pass takes besides; ``hidden_s`` of both and of collectives runs
    under the reading of weights, or of a host's part of it beside the device.
    """

    times: int
    terms: Terms
    fixed_s: float
    beside_s: float
    hidden_s: float
    seconds: float
    weights_bytes: float
    cache_bytes: float
    peak_bytes: float
    usable_bytes: float


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass of a point, which counts ``times``: its graph, and what it takes besides that.

    While the device runs, a host starts its kernels for ``host_s``: the longer one counts. ``request_s`` comes once.
    """

    phase: str
    times: int
    grid: Grid
    graph: Graph
    step_s: float
    host_s: float
    request_s: float

    def seconds(self, choice: Choice) -> float:
        """Seconds of the pass with that choice."""
        return max(self.graph.seconds(choice) + self.step_s, self.host_s) + self.request_s

    def evaluated(self, choice: Choice) -> Evaluated:
        """What the choice takes, by parts."""
        graph = self.graph
        places = {
            each.name: float(each.held_bytes[each.shardings.index(choice[each.name])]) for each in graph.operators
        }
        device_s = graph.seconds(choice) + self.step_s
        return Evaluated(
            times=self.times,
            terms=graph.terms(choice),
            fixed_s=graph.fixed_s,
            beside_s=self.step_s + self.request_s + self.host_s,
            hidden_s=graph.hidden_s(choice) + min(self.host_s, device_s),
            seconds=self.seconds(choice),
            weights_bytes=sum(size for name, size in places.items() if name in KEPT or name.endswith(".weights")),
            cache_bytes=places["attention"],
            peak_bytes=graph.peak_bytes(choice),
            usable_bytes=graph.usable_bytes,
        )


def passes_of(point: Point) -> list[Pass]:
    """The passes of a point's phase: a prompt, a decode step, or both."""
    grid = grid_of([replace(point, partitioner="gspmd", planner="auto", shardings=None)])

    def value(name: str) -> float:
        return float(np.ravel(getattr(grid, name))[0])

    found = []
    for phase in ("prefill", "decode"):
        if point.phase in (phase, "generate"):
            prefill = phase == "prefill"
            times = max(point.decode_steps, 1) if point.phase == "generate" and not prefill else 1
            costs = costs_of(grid, prefill=prefill)
            sampled_s = value("sampling_s_per_logit") * costs.sampled * value("vocab")
            found.append(
                Pass(
                    phase=phase,
                    times=times,
                    grid=grid,
                    graph=graph_of(point.model, grid, point.mesh, prefill=prefill),
                    step_s=value("step_s") + sampled_s,
                    host_s=costs.host_s(),
                    request_s=value("request_s") * prefill,
                )
            )
    return found
