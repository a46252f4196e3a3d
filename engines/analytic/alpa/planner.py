"""A plan of a point: shardings of every operator, beside the named layouts and the stages that a pipeline would have."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from engines.analytic.alpa.exported import shardings_of
from engines.analytic.alpa.graph import Choice, Terms
from engines.analytic.alpa.ilp import best_choice
from engines.analytic.alpa.layer import graph_of
from engines.analytic.alpa.named import Name, named_choices
from engines.analytic.alpa.pipeline import Pipeline, best_pipeline
from engines.analytic.grid import Grid, grid_of
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.point import Point
from engines.core.shardings import Shardings

SAME: Final = 1e-6
"""Share of a pass within which the best named layout is the plan: the solver's tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan of a point's phase. Seconds are of one forward pass: of the prompt, or of a decode step.

    ``name`` is the named layout that the plan is, None where it is none of them. ``named_s`` has those that fit.
    ``beside_s`` is what a pass takes whatever the plan, and is part of every time.
    """

    choice: Choice
    shardings: Shardings
    name: Name | None
    seconds: float
    beside_s: float
    terms: Terms
    held_bytes: float
    peak_bytes: float
    cache_bytes: float
    named_s: Mapping[Name, float]
    pipeline: Pipeline | None
    planning_s: float

    @property
    def best_named(self) -> Name | None:
        """The fastest named layout that fits."""
        return min(self.named_s, key=lambda name: self.named_s[name]) if self.named_s else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the seconds that planning took: the same in every run."""
        best = self.best_named
        return {
            "shardings": self.shardings.to_dict(),
            "shardings_digest": self.shardings.digest,
            "named_layout": None if self.name is None else "/".join(self.name),
            "pass_s": self.seconds,
            "best_named_layout": None if best is None else "/".join(best),
            "best_named_pass_s": None if best is None else self.named_s[best],
            "named_pass_s": {"/".join(name): seconds for name, seconds in self.named_s.items()},
            "pipeline": None if self.pipeline is None else self.pipeline.to_dict(),
        }


def check_planned(point: Point) -> None:
    """Check that a plan can be made for a point.

    Raises:
        InvalidRequest: it has two phases, or states a layout itself.
        Unsupported: it is no dense model on a TPU slice.
    """
    model = point.model
    if point.phase not in ("prefill", "decode"):
        raise InvalidRequest(
            "planner",
            point.planner,
            f"plans one phase, and phase={point.phase} has two",
            "plan phase=prefill and phase=decode",
        )
    for key in ("ffn_layout", "attn_sharding"):
        if getattr(point, key) != "auto":
            raise InvalidRequest(
                "planner", point.planner, f"chooses what {key}={getattr(point, key)} states", f"leave {key}=auto"
            )
    if point.chip.kind != "tpu":
        raise Unsupported(
            f"planner=alpa: plans slices of TPUs, and hw={point.chip.name}; plan for a TPU slice of this mesh and give "
            "its shardings=FILE"
        )
    check_model(point)
    if model.d_model % point.num_chips or model.d_ff % point.num_chips:
        raise Unsupported(
            f"planner=alpa: d_model={model.d_model} and d_ff={model.d_ff} must split over num_chips={point.num_chips}; "
            "use a number of chips that divides both"
        )


def check_model(point: Point) -> None:
    """Check that a model's layers are of dense matmuls and heads alone.

    Raises:
        Unsupported: they are not.
    """
    model = point.model
    for has, what in (
        (model.num_experts is not None, "experts"),
        (model.attention.is_latent, "latent attention"),
        (model.encoder, "an encoder's layers"),
    ):
        if has:
            raise Unsupported(
                f"planner=alpa: knows no shardings of {what}, which model={model.name} has; use planner=auto"
            )


def planned(point: Point, *, stages: bool = True) -> Planned:
    """The plan of a point; ``stages`` looks for a pipeline as well.

    Raises:
        InvalidRequest, Unsupported: see :func:`check_planned`.
        OutOfMemory: no shardings fit.
    """
    check_planned(point)
    begun = time.perf_counter()
    mesh, prefill = point.mesh, point.phase == "prefill"
    grid = grid_of([replace(point, partitioner="gspmd", planner="auto", shardings=None)])
    graph = graph_of(point.model, grid, mesh, prefill=prefill)
    named = dict(named_choices(point.model, mesh, point.batch_size, graph))
    fitting = {name: graph.seconds(choice) for name, choice in named.items() if graph.fits(choice)}
    choice, name = best_choice(graph), None
    best = min(fitting, key=lambda each: fitting[each]) if fitting else None
    if best is not None and fitting[best] <= graph.seconds(choice) * (1 + SAME):
        choice, name = named[best], best
    beside_s = _beside_s(grid, prefill)
    pipeline = None
    if stages:
        pipeline = best_pipeline(point.model, grid, mesh, prefill=prefill, whole=graph, choice=choice, beside_s=beside_s)
    attention = next(each for each in graph.operators if each.name == "attention")
    return Planned(
        choice=choice,
        shardings=shardings_of(point.model, mesh, choice),
        name=name,
        seconds=graph.seconds(choice) + beside_s,
        beside_s=beside_s,
        terms=graph.terms(choice),
        held_bytes=graph.held_bytes(choice),
        peak_bytes=graph.peak_bytes(choice),
        cache_bytes=float(attention.held_bytes[attention.shardings.index(choice["attention"])]),
        named_s={each: seconds + beside_s for each, seconds in fitting.items()},
        pipeline=pipeline,
        planning_s=time.perf_counter() - begun,
    )


def _beside_s(grid: Grid, prefill: bool) -> float:
    """What a pass takes besides its layers: its fixed cost and sampling; and a prompt what a request takes."""

    def value(name: str) -> float:
        return float(np.ravel(getattr(grid, name))[0])

    chips = value("x") * value("y") * value("z")
    sampled = value("sampling_s_per_logit") * value("batch") * value("vocab") / chips
    return value("step_s") + sampled + value("request_s") * prefill


