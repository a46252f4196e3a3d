"""What is known of a compiled and timed program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engines.compiled.cost.account import Account, Branch
from engines.compiled.cost.base import CostModel
from engines.compiled.hlo.source import Source, read_sources
from engines.compiled.perfetto import write_trace_file
from engines.compiled.program import explain
from engines.compiled.program.breakdown import CollectiveSum, Line, collectives_of, lines_of
from engines.compiled.program.memory import Memory, memory_of
from engines.compiled.program.placement import Placement
from engines.compiled.program.repeated import Repeated, repeated
from engines.compiled.timed import TimedProgram
from engines.core.slice import Slice


@dataclass(frozen=True, kw_only=True)
class ProgramEstimate:
    """A program on a slice that need not be there: its time by the compiler's schedule, and where it goes.

    Seconds are of one call of the function, bytes of one device. Where the program leaves something open (which branch
    runs, how often a loop turns, what an instruction takes that no rule knows), ``step_time_s`` is the longest and
    ``interval_s`` the least and the most. ``program_id`` is a digest of the program and of all that decides its time.
    """

    name: str
    slice: Slice
    placement: Placement
    cost: CostModel
    timed: TimedProgram
    program_id: str
    versions: Mapping[str, str]
    num_slices: int = 1

    @property
    def account(self) -> Account:
        """Every sum of the schedule."""
        return self.timed.account

    @property
    def step_time_s(self) -> float:
        """Seconds of one call."""
        return self.account.total_s

    @property
    def interval_s(self) -> tuple[float, float]:
        """Least and most seconds of one call: equal where the program leaves nothing open."""
        return (self.timed.shortest.account.total_s, self.account.total_s)

    @property
    def compute_s(self) -> float:
        """Seconds that the cores compute, memory traffic of their instructions included."""
        return self.account.compute_s

    @property
    def memory_s(self) -> float:
        """Seconds of the HBM traffic at full bandwidth, which are part of ``compute_s``."""
        return self.account.memory_s

    @property
    def communication_s(self) -> float:
        """Seconds of all collectives on their links."""
        return self.account.communication_s

    @property
    def exposed_s(self) -> float:
        """Seconds of communication that nothing overlaps."""
        return self.account.exposed_s

    @property
    def copy_wait_s(self) -> float:
        """Seconds of waiting for copies between memories."""
        return self.account.copy_wait_s

    @property
    def hlo(self) -> str:
        """The scheduled HLO."""
        return self.timed.compiled.text

    @property
    def branches(self) -> Sequence[Branch]:
        """The conditionals, with the seconds of each branch."""
        return self.timed.timeline.branches

    @cached_property
    def sources(self) -> Mapping[str, Source]:
        """Name of an HLO instruction → the line of source that it comes from."""
        return read_sources(self.timed.module).named(self.timed.module, self.timed.schedule.computations)

    @cached_property
    def hot_spots(self) -> list[Line]:
        """The lines of source by time, the longest first; their seconds sum to ``step_time_s``."""
        return lines_of(self.timed.timeline, self.sources)

    @cached_property
    def collectives(self) -> list[CollectiveSum]:
        """The collectives by kind and axes, those that take the longest first."""
        placement = self.placement
        return collectives_of(self.timed.schedule, self.timed.timeline, self.cost, placement.axes, self.sources)

    @cached_property
    def repeated(self) -> list[Repeated]:
        """Collectives that fetch the same value more than once."""
        return repeated(self.timed.module, self.timed.schedule)

    @cached_property
    def hbm(self) -> Memory:
        """HBM of one device by kind."""
        return memory_of(self.timed.module, self.timed.compiled.memory)

    def trace(self, path: str | Path) -> Path:
        """Write the schedule as a trace that Perfetto and xprof's trace viewer open; returns its path.

        Every bar names its HLO instruction and its line of source.
        """
        places = {name: source.place for name, source in self.sources.items() if source.place}
        return write_trace_file(Path(path).expanduser(), self.timed.timeline, self.name, None, places)

    def explain(self) -> str:
        """About ten lines of prose: what the step takes, waits for, repeats and leaves open."""
        return explain.explained(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: without the HLO."""
        return explain.plain(self)
