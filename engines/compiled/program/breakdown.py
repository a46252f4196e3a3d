"""Where a program's time goes: by line of the source, and by collective along the axes of the program's own mesh."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engines.compiled.cost.base import CostModel
from engines.compiled.cost.timeline import COMPUTE, COPY_WAIT, EXPOSED, TURNS, Timeline
from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.replica_groups import group_axes, parse_groups, parse_pairs
from engines.compiled.hlo.schedule import Schedule
from engines.compiled.hlo.source import NOWHERE, Source
from engines.compiled.program.placement import Axes

COMPUTING: Final = "compute"
EXPOSED_COMMUNICATION: Final = "exposed communication"
WAITING_FOR_COPIES: Final = "copy wait"
_WHAT: Final = {EXPOSED: EXPOSED_COMMUNICATION, COPY_WAIT: WAITING_FOR_COPIES}
SOME: Final = "part of the mesh"
"""What a collective's axes are called whose groups are not products of whole axes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the source: ``seconds`` of the step are spent in its instructions or waiting for them.

    ``by_what`` splits them into compute, exposed communication and copy wait; ``instructions`` are the HLO names, the
    longest first.
    """

    source: Source
    seconds: float
    by_what: Mapping[str, float]
    instructions: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveSum:
    """All collectives of a kind along the same axes of the program's mesh.

    ``bytes`` are those of a device's larger side, over all runs; ``seconds`` those on the links; for ``exposed_s`` the
    cores do nothing but wait for them, also until a link is free. ``places`` are the lines of source that ask for them,
    the longest first.
    """

    opcode: str
    axes: tuple[str, ...]
    count: int
    bytes: float
    seconds: float
    exposed_s: float
    places: Sequence[str]

    @property
    def along(self) -> str:
        """The axes as text, such as ``data, model``."""
        return ", ".join(self.axes)


def lines_of(timeline: Timeline, sources: Mapping[str, Source]) -> list[Line]:
    """The lines of source by time, the longest first; their seconds sum to the step's."""
    seconds: dict[Source, Counter[str]] = {}
    instructions: dict[Source, Counter[str]] = {}
    for event in timeline.events:
        if event.lane != COMPUTE or event.note == TURNS:
            continue
        source = sources.get(event.name, NOWHERE)
        key = Source(source.file, source.line, source.function, "" if source.file else source.operation)
        spent = event.seconds * event.turns
        what = _WHAT.get(event.note, COMPUTING)
        seconds.setdefault(key, Counter())[what] += spent  # type: ignore[assignment]
        instructions.setdefault(key, Counter())[event.name] += spent  # type: ignore[assignment]
    found = [
        Line(
            source=source,
            seconds=sum(by_what.values()),
            by_what=dict(by_what),
            instructions=[name for name, _ in instructions[source].most_common()],
        )
        for source, by_what in seconds.items()
    ]
    return sorted(found, key=lambda line: -line.seconds)


def collectives_of(
    schedule: Schedule, timeline: Timeline, cost: CostModel, axes: Axes, sources: Mapping[str, Source]
) -> list[CollectiveSum]:
    """Sums of the collectives, those that take the longest first."""
    exposed: Counter[str] = Counter()
    for event in timeline.events:
        if event.lane == COMPUTE and event.note == EXPOSED:
            exposed[event.name] += event.seconds * event.turns  # type: ignore[assignment]
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[str, int, Collective, float]]] = {}
    for name, turns, collective in collectives_in(schedule):
        key = (collective.opcode, axes_of(collective, axes))
        seconds = cost.collective_time(collective).seconds
        groups.setdefault(key, []).append((name, turns, collective, seconds * turns))
    found = []
    for (opcode, along), members in groups.items():
        places = Counter[str]()
        for name, _, _, seconds in members:
            places[sources.get(name, NOWHERE).place] += seconds  # type: ignore[assignment]
        found.append(
            CollectiveSum(
                opcode=opcode,
                axes=along,
                count=sum(turns for _, turns, _, _ in members),
                bytes=sum(turns * each.whole_bytes for _, turns, each, _ in members),
                seconds=sum(seconds for *_, seconds in members),
                exposed_s=sum(exposed[name] for name in dict.fromkeys(name for name, *_ in members)),
                places=[place for place, _ in places.most_common() if place],
            )
        )
    return sorted(found, key=lambda each: -each.seconds)


def collectives_in(schedule: Schedule) -> Iterator[tuple[str, int, Collective]]:
    """Every collective of the schedule with its number of runs."""
    for name, turns in runs_of(schedule).items():
        for step in schedule.computations[name]:
            if step.collective is not None and turns:
                yield step.name, turns, step.collective


def runs_of(schedule: Schedule) -> dict[str, int]:
    """Computation → how often it runs in the program; each branch of a conditional counts as one that runs."""
    runs: Counter[str] = Counter({schedule.entry: 1})
    for name in _callers_first(schedule):
        for step in schedule.computations[name]:
            for called in step.called:
                runs[called] += runs[name] * step.trips
    return dict(runs)


def _callers_first(schedule: Schedule) -> list[str]:
    """Computations in an order in which each stands after all that call it."""
    done, order, waiting = set[str](), list[str](), [(schedule.entry, False)]
    while waiting:
        name, left = waiting.pop()
        if left:
            order.append(name)
        elif name not in done:
            done.add(name)
            waiting.append((name, True))
            waiting += [(called, False) for step in schedule.computations[name] for called in step.called]
    return order[::-1]


def axes_of(collective: Collective, axes: Axes) -> tuple[str, ...]:
    """The axes of the program's mesh that a collective spans, or :data:`SOME`; the first goes between slices."""
    names, sizes = list(axes), list(axes.values())
    if collective.slices > 1:
        return (names[0],)
    if collective.opcode == "collective-permute":
        pairs = parse_pairs(collective.pairs)
        moved = {axis for pair in pairs for axis in _differing(pair, sizes)}
        return tuple(names[axis] for axis in sorted(moved))
    devices = 1
    for size in sizes:
        devices *= size
    try:
        found = group_axes(parse_groups(collective.groups, devices), sizes)
    except ValueError:  # a number beyond the mesh
        found = None
    return (SOME,) if found is None else tuple(names[axis] for axis in found)


def _differing(pair: tuple[int, int], sizes: Sequence[int]) -> list[int]:
    """Axes along which two devices of a mesh differ."""
    one, other = pair
    found = []
    for axis in reversed(range(len(sizes))):
        if one % sizes[axis] != other % sizes[axis]:
            found.append(axis)
        one, other = one // sizes[axis], other // sizes[axis]
    return found
