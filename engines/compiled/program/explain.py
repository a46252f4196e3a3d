"""An estimate in prose of about ten lines, and as plain values."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engines.compiled.cost.version import timing_model
from engines.core.text import significant

if TYPE_CHECKING:
    from engines.compiled.program.repeated import Repeated
    from engines.compiled.program.result import ProgramEstimate

MOST: Final = 3
"""Lines of source, collectives and repetitions that are told."""
LARGE_SHARE: Final = 0.01
"""Share of the step from which on what is only bounded is told."""


def explained(found: "ProgramEstimate") -> str:
    """What the step takes, where it is spent, what it waits for, what is fetched in vain and what is not known."""
    return "\n".join(_sentences(found))


def _sentences(found: "ProgramEstimate") -> Iterator[str]:
    total = found.step_time_s
    mesh = ", ".join(f"{name}={size}" for name, size in found.placement.axes.items())
    several = f"{found.num_slices} × " if found.num_slices > 1 else ""
    where = f"{several}{found.slice.num_chips} {found.slice.chip.name} ({mesh})"
    yield f"{found.name} on {where} takes {shown_s(total)} a call{_interval(found)}."
    yield (
        f"{_share(found.compute_s, total)} is computing (its HBM traffic alone takes {shown_s(found.memory_s)}), "
        f"{_share(found.exposed_s, total)} waiting for collectives and {_share(found.copy_wait_s, total)} for copies."
    )
    if found.hot_spots:
        told = [
            f"{_place(line.source.place) or 'instructions without a source line'} {_share(line.seconds, total)}"
            for line in found.hot_spots[:MOST]
        ]
        yield f"Most of the time: {'; '.join(told)}."
    hidden = found.communication_s - found.exposed_s
    if found.communication_s:
        yield (
            f"Collectives keep links busy for {shown_s(found.communication_s)}, of which {shown_s(max(0.0, hidden))} "
            "overlap other work."
        )
    for each in found.collectives[:MOST]:
        where = f", asked for at {_place(each.places[0])}" if each.places else ""
        along = f" along {each.along}" if each.axes else " on one device"
        yield (
            f"{each.count} {each.opcode}{along} move {shown_bytes(each.bytes)} a device in {shown_s(each.seconds)}; "
            f"the cores wait {shown_s(each.exposed_s)} for them{where}."
        )
    for again in found.repeated[:MOST]:
        yield _repetition(found, again)
    for branch in found.branches[:MOST]:
        if max(branch.seconds) >= LARGE_SHARE * total / max(1, branch.turns):
            times = " or ".join(shown_s(each) for each in branch.seconds)
            place = _place(found.sources[branch.name].place) or branch.name
            yield f"The conditional at {place} takes {times}, as the branch runs; the longest counts."
    steps = (step for each in found.timed.schedule.computations.values() for step in each)
    if any(step.collective is not None and step.collective.slices > 1 for step in steps):
        yield "Collectives between slices take their bytes at the network's bandwidth, the least that they can."
    yield from _unknown(found)
    hbm = found.hbm
    if hbm.peak_bytes is not None and hbm.temporaries_bytes is not None:
        limit = found.slice.chip.hbm_bytes
        of = f" of {shown_bytes(limit)}" if limit else ""
        yield (
            f"A device holds {shown_bytes(hbm.peak_bytes)}{of}: {shown_bytes(hbm.arguments_bytes)} of arguments and "
            f"{shown_bytes(hbm.temporaries_bytes)} of temporaries."
        )


def _interval(found: "ProgramEstimate") -> str:
    least, most = found.interval_s
    return "" if most - least <= 1e-3 * most else f" (at least {shown_s(least)})"


def _repetition(found: "ProgramEstimate", again: "Repeated") -> str:
    places = list(dict.fromkeys(filter(None, (_place(found.sources[name].place) for name in again.names))))
    times = sum(again.runs)
    often = "twice" if times == 2 else f"{times} times"
    where = " and ".join(places[:MOST]) or ", ".join(again.names[:MOST])
    how = " in a loop that does not change it" if len(again.names) == 1 else ""
    operand = found.sources.get(again.operand.partition("[")[0])
    value = operand.operation if operand is not None and operand.operation else again.operand
    return (
        f"The {again.opcode} of the same operand ({value}) is done {often}{how}, at {where}: one would do, and the "
        f"others take {shown_s(_in_vain_s(found, again))}."
    )


def _in_vain_s(found: "ProgramEstimate", again: "Repeated") -> float:
    """Seconds on the links of all runs but the first."""
    steps = {
        step.name: step.collective
        for steps in found.timed.schedule.computations.values()
        for step in steps
        if step.collective is not None
    }
    each = [
        (found.cost.collective_time(collective).seconds, count)
        for name, count in zip(again.names, again.runs, strict=True)
        if (collective := steps.get(name)) is not None
    ]
    return sum(seconds * count for seconds, count in each) - (each[0][0] if each else 0.0)


def _unknown(found: "ProgramEstimate") -> Iterator[str]:
    total, account = found.step_time_s, found.account
    for label, seconds in account.unestimated_by_label_s.most_common(MOST):
        if seconds < LARGE_SHARE * total:
            continue
        count = account.unestimated[label]
        yield (
            f"The compiler states no cycles for {count} {label}: their bytes and operations at the roofline make "
            f"{_share(seconds, total)} of the step."
        )
    if account.at_least_s >= LARGE_SHARE * total:
        yield (
            f"{_share(account.at_least_s, total)} of the step is the least that kernels, sorts and transfers with "
            "the host can take; nobody states the most."
        )
    if found.timed.schedule.assumed:
        places = dict.fromkeys(_place(found.sources[name].place) or name for name in found.timed.schedule.assumed)
        yield f"How often the loop at {', '.join(places)} turns was given, and does not follow from the program."


def plain(found: "ProgramEstimate") -> dict[str, Any]:
    """Every figure as plain values; see :class:`engines.compiled.program.result.ProgramEstimate`."""
    total, account = found.step_time_s, found.account
    least, most = found.interval_s
    return {
        "name": found.name,
        "hw": found.slice.chip.name,
        "num_chips": found.slice.num_chips * found.num_slices,
        "num_slices": found.num_slices,
        "mesh": dict(found.placement.axes),
        "step_time_s": total,
        "interval_s": [least, most],
        "compute_s": found.compute_s,
        "memory_s": found.memory_s,
        "communication_s": found.communication_s,
        "exposed_s": found.exposed_s,
        "copy_wait_s": found.copy_wait_s,
        "hbm": asdict(found.hbm),
        "hot_spots": [
            {
                "place": line.source.place,
                "operation": line.source.operation,
                "seconds": line.seconds,
                "by_what": dict(line.by_what),
                "instructions": list(line.instructions[:MOST]),
            }
            for line in found.hot_spots[:20]
        ],
        "collectives": [asdict(each) for each in found.collectives],
        "repeated": [
            {**asdict(each), "places": [found.sources[name].place for name in each.names]} for each in found.repeated
        ],
        "branches": [asdict(branch) for branch in found.branches],
        "assumed_loops": list(found.timed.schedule.assumed),
        "unestimated_s": account.unestimated_s,
        "unestimated_instructions": dict(account.unestimated),
        "unestimated_by_label_s": dict(account.unestimated_by_label_s),
        "unknown_s": account.unknown_s,
        "at_least_s": account.at_least_s,
        "unknown_instructions": found.timed.unknown,
        "program_id": found.program_id,
        **timing_model(found.timed.instructions),
        "versions": dict(found.versions),
    }


def _place(place: str) -> str:
    """A place relative to the current folder where it is inside."""
    here = f"{Path.cwd()}/"
    return place.removeprefix(here)


def shown_s(seconds: float) -> str:
    """Seconds in the unit that suits: ``3.2 ms``; 0 where it is below a picosecond, as rounding leaves it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= scale:
            return f"{significant(seconds / scale)} {unit}"
    return "0 s" if seconds < 1e-12 else f"{significant(seconds / 1e-9)} ns"


def shown_bytes(count: float) -> str:
    """Bytes in the decimal unit that suits: ``1.5 GB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{significant(count / scale)} {unit}"
    return f"{count:.0f} B"


def _share(seconds: float, total: float) -> str:
    return f"{seconds / total:.0%}" if total else "0%"
