"""A deep program whose layers are unrolled, timed from two shallow ones: every further layer adds the same.

Compiling takes time in proportion to the layers. Two depths tell what one layer adds and what the rest takes, so times,
bytes and memory of all layers follow in a straight line (:func:`at_all_layers`), within 3% of the whole program's. A
program that may not fit is compiled whole, since only the compiler knows.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from engines.compiled.compile.cache import CompiledProgram
from engines.compiled.cost.account import Account
from engines.compiled.cost.timeline import Timeline
from engines.compiled.target.memory import peak_bytes
from engines.compiled.timed import TimedProgram

if TYPE_CHECKING:
    from engines.core.model import Model
    from engines.transformer.partition.plan import Plan

FEWEST: Final = 2
STEP: Final = 4
"""Layers of the first program, and how many more the second has at least: the first and the last layer are scheduled
unlike those between."""
SURELY_FITS: Final = 0.9
"""Up to this fraction of a device's memory a program surely fits: the compiler keeps some for itself."""


def depths_of(model: "Model") -> tuple[int, int]:
    """Layers of the two programs. They differ by whole periods of the model's kinds of layers, and so do they from it.

    Both have the dense layers that come first.
    """
    period = model.global_every or 1
    least = FEWEST + (model.dense_layers or 0)
    few = least + (model.num_layers - least) % period
    return few, few + -(-STEP // period) * period


def shallow(plan: "Plan") -> list["Plan"]:
    """The plan with few layers and with some more; [] where its layers are looped over, or compile as fast whole."""
    depths = depths_of(plan.model)
    if not plan.unrolled or plan.model.num_layers <= sum(depths):
        return []
    return [replace(plan, model=replace(plan.model, num_layers=each)) for each in depths]


def at_all_layers(few: TimedProgram, more: TimedProgram, model: "Model") -> TimedProgram:
    """The phase with all layers, from the same with :func:`depths_of`; its bars and text are the deeper one's."""
    first, second = depths_of(model)
    steps = (model.num_layers - first) / (second - first)

    def line(start: float, end: float) -> float:
        return start + (end - start) * steps

    def of_each(start: Mapping[str, float], end: Mapping[str, float]) -> dict[str, float]:
        return {key: line(start.get(key, 0), end[key]) for key in end}

    def timeline(start: Timeline, end: Timeline) -> Timeline:
        account = Account()
        account.add(start.account, 1 - steps)
        account.add(end.account, steps)
        account.unestimated = Counter({label: round(count) for label, count in account.unestimated.items()})
        return replace(end, account=account)

    unknown = of_each(few.unknown, more.unknown)
    return replace(
        more,
        compiled=CompiledProgram(
            text=more.compiled.text,
            memory=of_each(few.compiled.memory, more.compiled.memory),
            compile_s=few.compiled.compile_s + more.compiled.compile_s,
        ),
        schedule=replace(more.schedule, unknown=Counter({label: round(count) for label, count in unknown.items()})),
        timeline=timeline(few.timeline, more.timeline),
        shortest=timeline(few.shortest, more.shortest),
        least_s=None if few.least_s is None or more.least_s is None else line(few.least_s, more.least_s),
        depths=(first, second),
    )


def surely_fits(phase: TimedProgram, hbm_bytes: float) -> bool:
    """Whether a device with ``hbm_bytes`` of memory surely holds the phase's program."""
    return peak_bytes(phase.compiled.memory) <= SURELY_FITS * hbm_bytes
