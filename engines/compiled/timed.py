"""A compiled program's text, read and timed: the one path of our own programs and of everybody else's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engines.compiled.compile.cache import CompiledProgram
from engines.compiled.cost.account import Account
from engines.compiled.cost.base import CostModel
from engines.compiled.cost.timeline import NO_SHARES, Timeline, walk
from engines.compiled.hlo.opcodes import label_of
from engines.compiled.hlo.parser import Module, parse_module
from engines.compiled.hlo.schedule import Schedule, Trips, read_schedule
from engines.compiled.hotspots import hot_loop


@dataclass(frozen=True, slots=True)
class TimedProgram:
    """One program: compiled, read and timed. ``hot_loop`` lists where its time goes.

    ``shortest`` is its timeline with the shortest of every choice that the program leaves open. ``least_s`` is its time
    with the cost model's best case, None without one. ``depths`` are the layers of the programs that were compiled
    where their line gives all layers (:mod:`engines.compiled.depth`), else (). ``instructions`` are the labels of all
    in the text.
    """

    name: str
    compiled: CompiledProgram
    module: Module
    schedule: Schedule
    timeline: Timeline
    shortest: Timeline
    hot_loop: Mapping[str, Any]
    least_s: float | None = None
    depths: Sequence[int] = ()
    instructions: frozenset[str] = frozenset()

    @property
    def account(self) -> Account:
        """Seconds of the whole program."""
        return self.timeline.account

    @property
    def unknown(self) -> dict[str, int]:
        """Instructions that no rule knows, by label."""
        return dict(self.schedule.unknown)


def timed(
    name: str,
    compiled: CompiledProgram,
    cost: CostModel,
    unknown_trips: Trips | None = None,
    host_bytes_per_s: float | None = None,
    shares: Mapping[str, float] = NO_SHARES,
) -> TimedProgram:
    """Read and time a program that fits; ``host_bytes_per_s`` is the rate of the host's link, None if unknown.

    ``shares`` are those of :func:`engines.compiled.cost.timeline.walk`; its timeline is drawn without them, so that
    what is drawn follows one another, and accounted with them.

    Raises:
        UnreadableHlo: the text is no scheduled HLO that can be read, or has a loop of unknown trip count and
            ``unknown_trips`` is None.
        ShardbenchError: no links connect the devices of a collective.
    """
    module = parse_module(compiled.text)
    schedule = read_schedule(module, unknown_trips)
    best_case = cost.best_case()

    def timeline_of(cost: CostModel, *, least: bool = False) -> Timeline:
        drawn = walk(schedule, cost, least=least, host_bytes_per_s=host_bytes_per_s)
        if not shares:
            return drawn
        mean = walk(schedule, cost, least=least, host_bytes_per_s=host_bytes_per_s, shares=shares)
        return replace(drawn, account=mean.account, branches=mean.branches)

    timeline = timeline_of(cost)
    is_open = bool(schedule.unknown or schedule.assumed or timeline.branches)
    return TimedProgram(
        name,
        compiled,
        module,
        schedule,
        timeline,
        timeline_of(cost, least=True) if is_open else timeline,
        hot_loop(schedule, cost),
        timeline_of(best_case).account.total_s if best_case is not None else None,
        instructions=frozenset(label_of(each) for part in module.computations.values() for each in part.instructions),
    )
