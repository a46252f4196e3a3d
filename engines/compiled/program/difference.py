"""Two programs: what differs, and where the time went."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from engines.compiled.hlo.source import Source
from engines.compiled.program.breakdown import CollectiveSum
from engines.compiled.program.explain import shown_bytes, shown_s
from engines.compiled.program.result import ProgramEstimate

MOST: Final = 4
TELLING: Final = 0.005
"""Share of the longer program from which on a difference is told."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Seconds of the same part in both programs; 0 where one has none of it."""

    before_s: float
    after_s: float

    @property
    def seconds(self) -> float:
        """After − before."""
        return self.after_s - self.before_s


@dataclass(frozen=True)
class Difference:
    """``after`` against ``before``; seconds are of one call, and positive where ``after`` is slower."""

    before: ProgramEstimate
    after: ProgramEstimate

    @property
    def seconds(self) -> float:
        """After − before."""
        return self.after.step_time_s - self.before.step_time_s

    @property
    def ratio(self) -> float:
        """After / before."""
        return self.after.step_time_s / self.before.step_time_s

    @property
    def by_what(self) -> Mapping[str, Moved]:
        """Compute, exposed communication and copy wait, which sum to the step."""
        one, other = self.before, self.after
        return {
            "compute": Moved(one.compute_s, other.compute_s),
            "exposed communication": Moved(one.exposed_s, other.exposed_s),
            "copy wait": Moved(one.copy_wait_s, other.copy_wait_s),
        }

    @cached_property
    def by_function(self) -> Mapping[str, Moved]:
        """Function of the source (``file: function``), or the operation where none is known; the largest change first.

        Lines move when a file is edited, functions keep their names: so those are matched.
        """
        return _moved(_by_function(self.before), _by_function(self.after))

    @cached_property
    def by_collective(self) -> Mapping[str, Moved]:
        """Kind and axes of collectives, by seconds on the links."""
        return _moved(
            Counter({_label(each): each.seconds for each in self.before.collectives}),
            Counter({_label(each): each.seconds for each in self.after.collectives}),
        )

    @cached_property
    def instructions(self) -> Mapping[str, int]:
        """Opcode → how many more of its instructions ``after`` has in its text; those that differ."""
        one, other = _opcodes(self.before), _opcodes(self.after)
        return {name: other[name] - one[name] for name in sorted(one | other) if other[name] != one[name]}

    def explain(self) -> str:
        """The difference in prose of at most ten lines."""
        before, after = self.before.step_time_s, self.after.step_time_s
        lines = [
            f"{self.after.name} takes {shown_s(after)} against {shown_s(before)} of {self.before.name}: "
            f"{self.ratio:.3g} times as long."
        ]
        least = TELLING * max(before, after)
        parts = [
            f"{what} {_signed(moved.seconds)}" for what, moved in self.by_what.items() if abs(moved.seconds) >= least
        ]
        lines.append(f"Of that: {', '.join(parts)}." if parts else "Nothing that it waits for has changed.")
        told = [
            f"{name} {_signed(moved.seconds)} ({shown_s(moved.before_s)} → {shown_s(moved.after_s)})"
            for name, moved in list(self.by_function.items())[:MOST]
            if abs(moved.seconds) >= least
        ]
        if told:
            lines.append(f"By function: {'; '.join(told)}.")
        counts = {_label(each): each for each in self.before.collectives}
        later = {_label(each): each for each in self.after.collectives}
        for name in list(self.by_collective)[:MOST]:
            one, other = counts.get(name), later.get(name)
            if _figures(one) != _figures(other):
                lines.append(f"{name}: {_told(one)} → {_told(other)}.")
        one_peak, other_peak = self.before.hbm.peak_bytes, self.after.hbm.peak_bytes
        if one_peak is not None and other_peak is not None and one_peak != other_peak:
            lines.append(f"A device holds {shown_bytes(other_peak)} against {shown_bytes(one_peak)}.")
        if self.before.program_id == self.after.program_id:
            lines.append("Both are the same program.")
        return "\n".join(lines)


def compare(before: ProgramEstimate, after: ProgramEstimate) -> Difference:
    """What differs between two programs, and where the time went."""
    return Difference(before, after)


def _by_function(found: ProgramEstimate) -> Counter[str]:
    seconds: Counter[str] = Counter()
    for line in found.hot_spots:
        seconds[_function(line.source)] += line.seconds  # type: ignore[assignment]
    return seconds


def _function(source: Source) -> str:
    if not source.file:
        return source.operation or "no source line"
    return f"{Path(source.file).name}: {source.function or source.line}"


def _moved(one: Counter[str], other: Counter[str]) -> dict[str, Moved]:
    found = {name: Moved(one[name], other[name]) for name in one | other}
    return dict(sorted(found.items(), key=lambda item: -abs(item[1].seconds)))


def _label(each: CollectiveSum) -> str:
    return f"{each.opcode} along {each.along}"


def _figures(each: CollectiveSum | None) -> tuple[int, float]:
    return (0, 0.0) if each is None else (each.count, each.bytes)


def _told(each: CollectiveSum | None) -> str:
    if each is None:
        return "none"
    return f"{each.count} of {shown_bytes(each.bytes)} in {shown_s(each.seconds)}"


def _opcodes(found: ProgramEstimate) -> Counter[str]:
    module = found.timed.module
    names = found.timed.schedule.computations
    return Counter(each.opcode for name in names for each in module[name].instructions)


def _signed(seconds: float) -> str:
    return f"{'+' if seconds >= 0 else '−'}{shown_s(abs(seconds))}"
