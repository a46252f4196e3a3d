"""A plan of a point: shardings of every operator, beside the named layouts and the stages of a pipeline."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from engines.analytic.alpa.exported import shardings_of
from engines.analytic.alpa.graph import Choice
from engines.analytic.alpa.ilp import best_choice
from engines.analytic.alpa.named import Name, named_choices
from engines.analytic.alpa.passes import Evaluated, passes_of
from engines.analytic.alpa.pipeline import Pipeline, best_pipeline
from engines.analytic.constants import CALIBRATED_FOR
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.extension import EXTENSION
from engines.core.point import Point
from engines.core.shardings import Shardings, hidden_columns

READ: Final = ("attn_sharding", "expert_capacity", "planner", "routing_skew", "shardings")
"""Keys that not every engine reads and a plan does; the first is then auto."""
SAME: Final = 1e-6
"""Share of a pass within which the best named layout is the plan: the solver's tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan of a point: ``passes`` by phase, of a prompt, a decode step or both; a whole generation counts all of it.

    ``named_s`` are the seconds of the named layouts that fit, as ``seconds``. ``name`` is the named layout that the
    plan is, None where it is none of them.
    """

    choice: Choice
    shardings: Shardings
    passes: Mapping[str, Evaluated]
    name: Name | None
    named_s: Mapping[Name, float]
    pipeline: Pipeline | None
    planning_s: float

    @property
    def seconds(self) -> float:
        """Of one forward pass; of phase=generate the prompt and all decode steps."""
        return math.fsum(each.times * each.seconds for each in self.passes.values())

    @property
    def peak_bytes(self) -> float:
        """Most bytes of a chip at once."""
        return max(each.peak_bytes for each in self.passes.values())

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
        InvalidRequest: it states a layout itself.
        Unsupported: the model's layers, its sizes or the chip have no plans.
    """
    model = point.model
    for key, left_open in (
        *(("ffn_layout", "auto"), ("attn_sharding", "auto")),
        *(("tensor_parallel", None), ("pipeline_parallel", None)),
    ):
        if getattr(point, key) != left_open:
            raise InvalidRequest(
                "planner", point.planner, f"chooses what {key}={getattr(point, key)} states", f"leave {key}=auto"
            )
    check_place(point)
    columns = hidden_columns(model)
    if any(each % point.num_chips for each in (model.d_model, *columns)):
        fed = f" and {' and '.join(map(str, columns))} feed-forward columns" if columns else ""
        raise Unsupported(
            f"planner=alpa: d_model={model.d_model}{fed} of model={model.name} must split over "
            f"num_chips={point.num_chips}; use a number of chips that divides them"
        )


def check_place(point: Point) -> None:
    """Check that a layer is of matmuls, heads and experts alone, on chips with a datasheet, and nothing else is asked.

    Raises:
        Unsupported: they are not.
    """
    model = point.model
    if point.chip.kind not in CALIBRATED_FOR:
        raise Unsupported(
            f"planner=alpa: knows no costs of hw={point.chip.name}; plan for TPUs or GPUs of this mesh and give its "
            "shardings=FILE"
        )
    for key in fields(point):
        value = getattr(point, key.name)
        if EXTENSION in key.metadata and key.name not in READ and value != key.default:
            raise Unsupported(
                f"{key.name}={value}: planner=alpa does not count it; use planner=auto, or leave {key.name} out"
            )
    for has, what in (
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
    mesh = point.mesh
    passes = passes_of(point)
    graph = passes[0].graph
    named = dict(named_choices(point.model, mesh, point.batch_size, graph, megatron=point.chip.kind == "gpu"))
    fitting = {name: choice for name, choice in named.items() if all(each.graph.fits(choice) for each in passes)}

    def seconds(choice: Choice) -> float:
        return math.fsum(each.times * each.seconds(choice) for each in passes)

    named_s = {name: seconds(choice) for name, choice in fitting.items()}
    choice, name = best_choice(graph, *((each.times, each.graph) for each in passes[1:])), None
    best = min(named_s, key=lambda each: named_s[each]) if named_s else None
    if best is not None and named_s[best] <= seconds(choice) * (1 + SAME):
        choice, name = named[best], best
    found = None
    if stages and len(passes) == 1 and not passes[0].host_s:
        found = best_pipeline(
            point.model,
            passes[0].grid,
            mesh,
            prefill=passes[0].phase == "prefill",
            one_stage_s=seconds(choice),
            beside_s=passes[0].step_s + passes[0].request_s,
        )
    return Planned(
        choice=choice,
        shardings=shardings_of(point.model, mesh, choice),
        passes={each.phase: each.evaluated(choice) for each in passes},
        name=name,
        named_s=named_s,
        pipeline=found,
        planning_s=time.perf_counter() - begun,
    )


def evaluated(point: Point, choice: Choice) -> Mapping[str, Evaluated]:
    """What a stated choice takes at a point, by phase.

    Raises:
        Unsupported: the model's layers, or the chip, have no such plans.
        InvalidRequest: an operator has no such sharding.
    """
    check_place(point)
    passes, told = passes_of(point), dict(shardings_of(point.model, point.mesh, choice).cuts)
    for each in passes[0].graph.operators:
        if choice[each.name] not in each.shardings:
            raise InvalidRequest(
                "shardings",
                f"{each.name}:{'.'.join(axes or '-' for axes in told[each.name])}",
                f"does not split so over mesh_shape={list(point.mesh)} with batch_size={point.batch_size}",
                "use a plan of this point",
            )
    return {each.phase: each.evaluated(choice) for each in passes}
