"""The programs of a point that speculates, and their times over all turns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from engines.compiled.cost.account import Account
from engines.compiled.cost.timeline import Timeline
from engines.compiled.timed import TimedProgram
from engines.core.errors import OutOfMemory
from engines.core.point import Point
from engines.core.speculation import tokens_per_turn, turns_until

if TYPE_CHECKING:
    from engines.transformer.partition.plan import Plan
    from engines.transformer.speculation.options import Speculation

PHASES: Final = {"prefill": ("prefill",), "decode": ("decode",), "generate": ("prefill", "decode")}
OF_A_DRAFT: Final = ("draft_prefill", "draft")
"""The programs that propose."""


def phases_of(point: Point) -> tuple[str, ...]:
    """Names of the programs that a point runs; of those that speculate one turn is compiled."""
    plain = PHASES[point.phase]
    if point.speculative == "none":
        return plain
    reads = [name for name in plain if name == "prefill"]
    reads += ["draft_prefill"] if reads and point.speculative == "draft" else []
    return (*reads, *(["draft"] if point.speculative != "ngram" else []), "verify")


def check_turns(point: Point, plan: "Plan") -> None:
    """Check that the plan, and that of its draft, can speculate.

    Raises:
        InvalidRequest: see :func:`engines.transformer.speculation.options.check_speculation`.
        Unsupported: the same.
    """
    if point.speculative == "none":
        return
    from engines.transformer.speculation.first_layers import first_layers
    from engines.transformer.speculation.options import check_speculation

    check_speculation(point, plan)
    if point.draft_layers is not None:
        first_layers(plan, point.draft_layers)
    draft = draft_for(point, plan)
    if draft is not None:
        check_speculation(point, draft)


def check_both_fit(point: Point, peak_bytes: float) -> None:
    """Check that a chip holds both models: the compiler has seen only the one that a program runs.

    Raises:
        OutOfMemory: it does not.
    """
    hbm_bytes = point.chip.hbm_bytes
    if point.draft_model is not None and hbm_bytes is not None and peak_bytes > hbm_bytes:
        raise OutOfMemory(
            f"model={point.model.name} and draft_model={point.draft_model.name} need {peak_bytes / 1e9:.1f} GB of a "
            f"chip's {hbm_bytes / 1e9:.1f} GB"
        )


def turn_of(point: Point) -> "Speculation | None":
    """How a turn of the point proposes; its verdict is the real one, whatever rate is given."""
    from engines.transformer.speculation.options import speculation_of

    how = speculation_of(point)
    return None if how is None else replace(how, forced=None)


def draft_for(point: Point, plan: "Plan") -> "Plan | None":
    """The plan of the draft model beside ``plan``: on its mesh, with its collectives."""
    from engines.transformer.speculation.draft import draft_plan

    found = draft_plan(point, plan)
    return None if found is None else replace(found, collectives=plan.collectives)


def turns_of(point: Point) -> float:
    """Turns of the point's batch, by its acceptance rate."""
    return turns_until(point.acceptance_rate or 0.0, point.draft_len or 0, point.decode_steps, point.batch_size)


def over_turns(point: Point, phase: TimedProgram) -> TimedProgram:
    """The phase over all turns, if it is a part of one."""
    if phase.name not in ("draft", "verify"):
        return phase

    def times(timeline: Timeline) -> Timeline:
        account = Account()
        account.add(timeline.account, turns_of(point))
        return replace(timeline, account=account)

    least = None if phase.least_s is None else phase.least_s * turns_of(point)
    return replace(phase, timeline=times(phase.timeline), shortest=times(phase.shortest), least_s=least)


def details_of(point: Point, phases: Sequence[TimedProgram]) -> Mapping[str, Any]:
    """What a row says of the turns."""
    turns = turns_of(point)
    found = {f"{phase.name}_s": phase.account.total_s / turns for phase in phases if phase.name in ("draft", "verify")}
    return {"turns": turns, **found}


def tokens_of_a_turn(point: Point) -> float | None:
    """Mean tokens of a turn; None where the point does not speculate."""
    if point.speculative == "none":
        return None
    return tokens_per_turn(point.acceptance_rate or 0.0, point.draft_len or 0)
