"""Early exit in a compiled step: its program, and how often each way through its conditionals is taken."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engines.core.early_exit import leaving_of
from engines.core.point import Point

if TYPE_CHECKING:
    from engines.transformer.generate.early_exit import Exits
    from engines.transformer.partition.plan import Plan


def exits_for(point: Point) -> "Exits | None":
    """The exits of the program, which judges tokens as they are, whatever rate is given; None without any."""
    if point.exit_threshold is None:
        return None
    from engines.transformer.generate.early_exit import Exits

    return Exits(point.exit_threshold, point.exit_every or 0)


def check_leaving(point: Point, plan: "Plan") -> None:
    """Check that tokens of the plan can leave.

    Raises:
        Unsupported: see :func:`engines.transformer.generate.early_exit.check_exits`.
    """
    if point.exit_threshold is None:
        return
    from engines.transformer.generate.early_exit import check_exits

    check_exits(plan)


def shares_of(point: Point, phase: str) -> Mapping[str, float]:
    """How often, of all times, a part of the layers of a step still has tokens; {} where none leave.

    Layers that pass tokens, and judge them, take longer than those that only make keys and values: the share is that of
    the longest branch (:func:`engines.compiled.cost.timeline.walk`).
    """
    leaving = leaving_of(point)
    if leaving is None or phase != "decode":
        return {}
    from engines.transformer.generate.early_exit import AFTER_EXITS, BEFORE_EXITS

    stays = leaving.stays(leaving.sequences)
    return {BEFORE_EXITS: float(stays[:-1].mean()), AFTER_EXITS: float(stays[-1])}


def exit_details(point: Point) -> tuple[float | None, Mapping[str, Any]]:
    """``mean_layers`` of a row, and what its details say of a step."""
    leaving = leaving_of(point)
    if leaving is None:
        return None, {}
    return leaving.mean_layers, {"layers_of_a_step": leaving.layers_of_a_step, "exits_of_a_step": leaving.heads}
