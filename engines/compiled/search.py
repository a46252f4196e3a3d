"""What is compiled where a point leaves a choice open: the fastest of these answers it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.layout import COLLECTIVES, LAYOUTS, axes_size
from engines.core.point import Point
from engines.core.slice import MeshShape
from engines.transformer.partition.plan import Plan
from engines.transformer.partition.resolve import plan_of

if TYPE_CHECKING:
    from engines.compiled.timed import TimedProgram


@dataclass(frozen=True, slots=True)
class Tried:
    """The fastest plan with its phases, if any fits; why the first that does not; each one's seconds or refusal."""

    best: "tuple[Plan, list[TimedProgram]] | None" = None
    refusal: ShardbenchError | None = None
    times_s: Mapping[str, float | str] = field(default_factory=dict)


def total_s(phases: "Sequence[TimedProgram]") -> float:
    """Seconds of all phases."""
    return sum(phase.account.total_s for phase in phases)


def checked_collectives(names: Sequence[str]) -> tuple[str, ...]:
    """``engine.try_collectives`` as a tuple.

    Raises:
        InvalidRequest: it is empty, or a name is not a variant.
    """
    known = [each for each in COLLECTIVES if each != "auto"]
    if not names or isinstance(names, str) or any(each not in known for each in names):
        remedy = f"give a list of some of {', '.join(known)}, or give the point's own collectives="
        raise InvalidRequest("engine.try_collectives", names, "must be a list of variants", remedy)
    return tuple(dict.fromkeys(names))


def layouts(point: Point, mesh: MeshShape, collectives: str) -> list[Plan]:
    """The plan asked for; where a prefill leaves the layout open, also every gathered layout its batch splits over.

    A prefill's best layout depends on its tokens (Pope et al. 2022, section 3.2.3), so it is compiled both ways.
    ``collectives`` is the variant of all, where there is anything to choose.
    """
    plans = [plan_of(point, mesh_shape=mesh)]
    if point.ffn_layout == "auto" and point.phase == "prefill" and math.prod(mesh) > 1:
        for layout in LAYOUTS.values():
            shards = axes_size(layout.gathered, mesh)
            if shards > 1 and point.batch_size % shards == 0:
                plans.append(plan_of(point, ffn_layout=layout.name, mesh_shape=mesh))
    return variants(plans, [collectives]) or plans


def variants(plans: Sequence[Plan], collectives: Sequence[str]) -> list[Plan]:
    """The plans with each of these collectives; none where the compiler partitions, or nothing is sent."""
    moving = [plan for plan in plans if plan.chips > 1 and plan.partitioner == "manual"]
    return [replace(plan, collectives=each) for plan in moving for each in collectives]


def name_of(plan: Plan) -> str:
    """What tells a plan from the others that were tried."""
    return plan.ffn_layout if plan.collectives == "plain" else f"{plan.ffn_layout} {plan.collectives}"
