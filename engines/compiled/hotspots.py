"""Where a program's time goes: the instructions of its longest-running loop, summed by kind, and the longest of them.

Seconds, bytes and operations are of one iteration. An instruction's kind is its name without its number, as XLA names a
fusion after what it fuses; a collective's is its opcode. Overlap is ignored: a hidden collective counts in full.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from engines.compiled.cost.base import LINK, CostModel
from engines.compiled.hlo.schedule import Kind, Schedule, Step

LONGEST: Final = 10
_NUMBER: Final = re.compile(r"(\.\d+)+(\.clone)?$|_\d+$")


@dataclass(frozen=True, slots=True)
class HotSpot:
    """One instruction, or all of a kind: ``bytes`` of HBM traffic or, of a collective, its bytes per device."""

    name: str
    seconds: float
    bytes: float
    flops: float | None
    bound: str | None
    kind: str
    count: int = 1


def hot_loop(schedule: Schedule, cost: CostModel) -> dict[str, Any]:
    """The loop as JSON values: ``turns`` (iterations in all), ``seconds`` an iteration, ``by_kind`` and ``longest``.

    Empty if no instruction of the program takes time.
    """
    turns = dict(_run_counts(schedule, schedule.entry, 1))
    spots = {name: list(_spots(schedule.computations[name], cost)) for name in turns}
    seconds = {name: sum(spot.seconds for spot in found) for name, found in spots.items()}
    if not any(seconds.values()):
        return {}
    hottest = max(turns, key=lambda name: turns[name] * seconds[name])
    found = spots[hottest]
    longest = sorted(found, key=lambda spot: -spot.seconds)[:LONGEST]
    return {
        "turns": turns[hottest],
        "seconds": seconds[hottest],
        "by_kind": [_plain(spot) for spot in _by_kind(found)],
        "longest": [_plain(spot) for spot in longest],
    }


def _run_counts(schedule: Schedule, name: str, times: int) -> Iterator[tuple[str, int]]:
    """Every computation with its number of runs; of one that is called from several places, the last caller's."""
    yield name, times
    for step in schedule.computations[name]:
        for called in step.called:
            yield from _run_counts(schedule, called, times * step.trips)


def _spots(steps: tuple[Step, ...], cost: CostModel) -> Iterator[HotSpot]:
    for step in steps:
        if step.kind is Kind.COMPUTE:
            timed = cost.compute_time(step)
            yield HotSpot(
                step.name, timed.seconds, step.hbm_bytes, timed.flops, timed.bound, _NUMBER.sub("", step.name)
            )
        elif step.collective is not None:
            seconds, kind = cost.collective_time(step.collective).seconds, step.collective.opcode
            yield HotSpot(step.name, seconds, step.collective.whole_bytes, None, LINK, kind)


def _by_kind(found: list[HotSpot]) -> list[HotSpot]:
    """Sums per kind, the longest first; a kind's ``bound`` is that of its longest instruction."""
    kinds: dict[str, list[HotSpot]] = {}
    for spot in sorted(found, key=lambda spot: -spot.seconds):
        kinds.setdefault(spot.kind, []).append(spot)
    summed = [
        HotSpot(
            name=kind,
            seconds=sum(spot.seconds for spot in spots),
            bytes=sum(spot.bytes for spot in spots),
            flops=None if spots[0].flops is None else sum(spot.flops or 0.0 for spot in spots),
            bound=spots[0].bound,
            kind=kind,
            count=len(spots),
        )
        for kind, spots in kinds.items()
    ]
    return sorted(summed, key=lambda spot: -spot.seconds)


def _plain(spot: HotSpot) -> Mapping[str, Any]:
    """Values that JSON can hold, unknown ones left out, floats with four digits."""
    known = {key: value for key, value in asdict(spot).items() if value is not None and key != "kind"}
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in known.items()}
