"""A plan of a point: shardings of every operator, beside the named layouts and the stages of a pipeline."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np

from engines.analytic.alpa.exported import shardings_of
from engines.analytic.alpa.graph import Choice, Graph, Terms
from engines.analytic.alpa.ilp import best_choice
from engines.analytic.alpa.layer import graph_of
from engines.analytic.alpa.named import Name, named_choices
from engines.analytic.alpa.pipeline import Pipeline, best_pipeline
from engines.analytic.grid import Grid, grid_of
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.extension import EXTENSION
from engines.core.point import Point
from engines.core.shardings import Shardings

READ: Final = ("attn_sharding", "planner", "shardings")
"""Keys that not every engine reads and a plan does; the first is then auto."""
SAME: Final = 1e-6
"""Share of a pass within which the best named layout is the plan: the solver's tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What a choice takes: seconds of one forward pass, of a prompt or a decode step, and bytes of a chip.

    ``fixed_s`` is of the layers, ``beside_s`` what a pass takes besides; ``hidden_s`` of both and of collectives runs
    under the reading of weights.
    """

    terms: Terms
    fixed_s: float
    beside_s: float
    hidden_s: float
    seconds: float
    weights_bytes: float
    cache_bytes: float
    peak_bytes: float
    usable_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan of a point's phase; ``seconds`` of ``named_s``, the named layouts that fit, are of one forward pass.

    ``name`` is the named layout that the plan is, None where it is none of them.
    """

    choice: Choice
    shardings: Shardings
    evaluated: Evaluated
    name: Name | None
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
            "pass_s": self.evaluated.seconds,
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
    check_place(point)
    if model.d_model % point.num_chips or model.d_ff % point.num_chips:
        raise Unsupported(
            f"planner=alpa: d_model={model.d_model} and d_ff={model.d_ff} must split over num_chips={point.num_chips}; "
            "use a number of chips that divides both"
        )


def check_place(point: Point) -> None:
    """Check that the chips are a slice of TPUs, a layer is of dense matmuls and heads alone, and nothing else is asked.

    Raises:
        Unsupported: they are not.
    """
    model = point.model
    if point.chip.kind != "tpu":
        raise Unsupported(
            f"planner=alpa: plans slices of TPUs, and hw={point.chip.name}; plan for a TPU slice of this mesh and give "
            "its shardings=FILE"
        )
    for key in fields(point):
        value = getattr(point, key.name)
        if EXTENSION in key.metadata and key.name not in READ and value != key.default:
            raise Unsupported(
                f"{key.name}={value}: planner=alpa does not count it; use planner=auto, or leave {key.name} out"
            )
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
    grid, graph = _graph(point)
    named = dict(named_choices(point.model, mesh, point.batch_size, graph))
    fitting = {name: graph.seconds(choice) for name, choice in named.items() if graph.fits(choice)}
    choice, name = best_choice(graph), None
    best = min(fitting, key=lambda each: fitting[each]) if fitting else None
    if best is not None and fitting[best] <= graph.seconds(choice) * (1 + SAME):
        choice, name = named[best], best
    beside_s = _beside_s(grid, prefill)
    found = None
    if stages:
        one_stage_s = graph.seconds(choice) + beside_s
        found = best_pipeline(point.model, grid, mesh, prefill=prefill, one_stage_s=one_stage_s, beside_s=beside_s)
    return Planned(
        choice=choice,
        shardings=shardings_of(point.model, mesh, choice),
        evaluated=_evaluated(graph, choice, beside_s),
        name=name,
        named_s={each: seconds + beside_s for each, seconds in fitting.items()},
        pipeline=found,
        planning_s=time.perf_counter() - begun,
    )


def evaluated(point: Point, choice: Choice) -> Evaluated:
    """What a stated choice takes at a point.

    Raises:
        Unsupported: the model's layers, or the chip, have no such plans.
        InvalidRequest: an operator has no such sharding.
    """
    check_place(point)
    grid, graph = _graph(point)
    for each in graph.operators:
        if choice[each.name] not in each.shardings:
            raise InvalidRequest(
                "shardings",
                each.name,
                f"does not split so over mesh_shape={list(point.mesh)} with batch_size={point.batch_size}",
                "use a plan of this point",
            )
    return _evaluated(graph, choice, _beside_s(grid, point.phase == "prefill"))


def _graph(point: Point) -> tuple[Grid, Graph]:
    grid = grid_of([replace(point, partitioner="gspmd", planner="auto", shardings=None)])
    return grid, graph_of(point.model, grid, point.mesh, prefill=point.phase == "prefill")


def _evaluated(graph: Graph, choice: Choice, beside_s: float) -> Evaluated:
    places = {each.name: float(each.held_bytes[each.shardings.index(choice[each.name])]) for each in graph.operators}
    return Evaluated(
        terms=graph.terms(choice),
        fixed_s=graph.fixed_s,
        beside_s=beside_s,
        hidden_s=graph.hidden_s(choice),
        seconds=graph.seconds(choice) + beside_s,
        weights_bytes=sum(size for name, size in places.items() if name == "table" or name.endswith(".weights")),
        cache_bytes=places["attention"],
        peak_bytes=graph.peak_bytes(choice),
        usable_bytes=graph.usable_bytes,
    )


def _beside_s(grid: Grid, prefill: bool) -> float:
    """What a pass takes besides its layers: its fixed cost and sampling; and a prompt what a request takes."""

    def value(name: str) -> float:
        return float(np.ravel(getattr(grid, name))[0])

    chips = value("x") * value("y") * value("z")
    sampled = value("sampling_s_per_logit") * value("batch") * value("vocab") / chips
    return value("step_s") + sampled + value("request_s") * prefill
