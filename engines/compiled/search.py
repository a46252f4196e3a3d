"""What is compiled where a point leaves a choice open: the fastest of these answers it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.layout import COLLECTIVES, LAYOUTS, axes_size, variant_of
from engines.core.point import Point
from engines.core.slice import MeshShape
from engines.transformer.partition.plan import Plan
from engines.transformer.partition.resolve import over_heads, plan_of

if TYPE_CHECKING:
    from engines.compiled.timed import TimedProgram


AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class Tried:
    """The fastest plan with its phases, if any fits; why the first that does not; each one's seconds or refusal."""

    best: "tuple[Plan, list[TimedProgram]] | None" = None
    refusal: ShardbenchError | None = None
    times_s: Mapping[str, float | str] = field(default_factory=dict)

    def with_(self, other: "Tried") -> "Tried":
        """Both together; the first of equally fast ones."""
        both = [each for each in (self.best, other.best) if each is not None]
        best = min(both, key=lambda each: total_s(each[1]), default=None)
        return Tried(best, self.refusal or other.refusal, {**self.times_s, **other.times_s})


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


def checked_unrolling(value: object) -> bool | str:
    """``engine.unroll_layers``: true, false or auto.

    Raises:
        InvalidRequest: it is none of them.
    """
    if isinstance(value, bool) or value == AUTO:
        return value
    raise InvalidRequest("engine.unroll_layers", value, "must be true, false or auto", "use true, false or auto")


def families(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The variants in the order in which they are tried: those that split the residual stream, then the whole ones.

    Each kind has layouts of its own, so neither's depend on which one was named first.
    """
    split = tuple(each for each in names if not variant_of(each).whole_residual)
    whole = tuple(each for each in names if variant_of(each).whole_residual)
    return [each for each in (split, whole) if each]


def layouts(point: Point, mesh: MeshShape, collectives: str) -> list[Plan]:
    """The plans of a variant in every layout that the point leaves open; one plan where there is nothing to choose.

    A prefill's best layout depends on its tokens (Pope et al. 2022, section 3.2.3): the one asked for, and every
    gathered layout that its batch splits over. With a whole residual it is the layout that sends least with it.
    """
    if variant_of(collectives).whole_residual:
        plan = plan_of(point, mesh_shape=mesh)
        return variants([plan], [collectives], point) or [plan]
    plans = [plan_of(point, mesh_shape=mesh)]
    if point.ffn_layout == "auto" and point.phase == "prefill" and math.prod(mesh) > 1:
        for layout in LAYOUTS.values():
            shards = axes_size(layout.gathered, mesh)
            if shards > 1 and point.batch_size % shards == 0:
                plans.append(plan_of(point, ffn_layout=layout.name, mesh_shape=mesh))
    return [replace(plan, collectives=collectives) for plan in _sending(plans)] or plans


def variants(plans: Sequence[Plan], collectives: Sequence[str], point: Point) -> list[Plan]:
    """The plans with each of these collectives; none where the compiler partitions, or nothing is sent.

    One with a whole residual takes the layout that sends least with it, where the point leaves it open.
    """
    found: list[Plan] = []
    for name in collectives:
        suited = _one_dimensional if variant_of(name).whole_residual else _as_they_are
        found += (each for plan in _sending(plans) for each in suited(replace(plan, collectives=name), point))
    return list(dict.fromkeys(found))


def others(point: Point, plans: Sequence[Plan], collectives: Sequence[str], *, unroll: bool) -> list[Plan]:
    """What is tried after ``plans``, in their layouts: the other variants, and with ``unroll`` all of them unrolled."""
    if point.pipeline_degree > 1:
        return []
    more = variants(plans, collectives, point)
    return with_pages(point, unrolled([*plans, *more]) if unroll else more)


def unrolled(plans: Sequence[Plan]) -> list[Plan]:
    """The plans with arrays of their own for each layer."""
    return [replace(plan, unrolled=True) for plan in plans]


def _sending(plans: Sequence[Plan]) -> list[Plan]:
    """Those of several chips that run their own collectives."""
    return [plan for plan in plans if plan.chips > 1 and plan.partitioner == "manual"]


def _as_they_are(plan: Plan, _point: Point) -> list[Plan]:
    return [plan]


def _one_dimensional(plan: Plan, point: Point) -> list[Plan]:
    """In 1D a projection needs no other collective than its all-reduce, and over heads attention needs none.

    Over the batch attention exchanges columns, and no two chips cache the same key/value head.
    """
    if point.ffn_layout == AUTO:
        plan = replace(plan, ffn_layout="ws_1d")
    heads = over_heads(plan.model)
    if point.attn_sharding == AUTO and plan.attn_sharding != heads:
        return [replace(plan, attn_sharding=heads), plan]
    return [plan]


def name_of(plan: Plan) -> str:
    """What tells a plan from the others that were tried."""
    words = [plan.ffn_layout, *([] if plan.collectives == "plain" else [plan.collectives])]
    if variant_of(plan.collectives).whole_residual:
        words.append(plan.attn_sharding)
    return " ".join([*words, *(["unrolled"] if plan.unrolled else [])])


def with_pages(point: Point, plans: Sequence[Plan]) -> list[Plan]:
    """The plans, each with the pages of its cache where sequences are decoded without padding."""
    from engines.compiled.compile.compiler import SEED
    from engines.transformer.generate.ragged_prompts import paged

    return [paged(point, plan, SEED) for plan in plans]
