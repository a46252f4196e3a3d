"""Walks a schedule: one compute stream, the links between chips, and the engine that copies to and from HBM.

Instructions issue in their order. Computation holds the stream for as long as the machine says.
A collective holds the stream and its links until it ends. What a ``-start`` begins runs beside the stream on its links
(or on the copy engine) once they are free, and ``-done`` waits for its end: only what stands between the two overlaps.
A loop's body is walked once and counts as many times as it runs.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engines.compiled.cost.base import LINK, CollectiveTime, ComputeTime, CostModel
from engines.compiled.hlo.schedule import Kind, Schedule, Step

COMPUTE: Final = "compute"
COPY: Final = "copy"
MATMUL: Final = "matmul"
EXPOSED: Final = "exposed"
COPY_WAIT: Final = "copy wait"
TURNS: Final = "turns"


@dataclass(frozen=True, slots=True)
class Event:
    """One bar of the trace: a lane, when, how long, of what kind, and how often the loops around it run.

    ``note`` is an opcode or, in the compute lane, ``matmul`` for what multiplies matrices, ``exposed`` and
    ``copy wait`` where the stream waits for an exchange or a copy, and ``turns`` for a loop's further turns, which
    count with the first and so have 0 ``turns``: Σ seconds · turns of that lane is the account's total. ``bytes`` is
    the HBM traffic, on a link what a chip holds of an exchange; ``latency_s`` the part of an exchange that its size
    does not change. ``flops``, the compiler's ``cycles`` and what ``bound`` it are told where they are known.
    ``loop`` is the index of the innermost loop around the bar, 0 outside of all; ``repeats`` is the index of the loop
    whose further turns the bar stands for, 0 for any other bar.
    """

    lane: str
    name: str
    start_s: float
    seconds: float
    note: str = ""
    turns: int = 1
    bytes: float = 0.0
    latency_s: float = 0.0
    flops: float | None = None
    cycles: int | None = None
    bound: str | None = None
    loop: int = 0
    repeats: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop of two turns or more, of which the first is drawn from ``start_s`` on for ``turn_s``.

    ``index`` is 1 or more and no other loop's; ``parent`` is the loop around it, 0 outside of all. Its ``turns`` follow
    one another, and the whole loop runs ``runs`` times in the program.
    """

    index: int
    name: str
    parent: int
    turns: int
    runs: int
    start_s: float
    turn_s: float


@dataclass(slots=True)
class Account:
    """Seconds of one walk, its loops multiplied out.

    ``compute_s`` is the stream computing; ``memory_s`` the HBM traffic at full bandwidth, which runs inside it;
    ``communication_s`` all collectives, of which ``overlapped_s`` ran beside the stream and ``exposed_s`` did not;
    ``copy_wait_s`` is waiting for copies. Time = compute + exposed + copy wait.
    """

    total_s: float = 0.0
    compute_s: float = 0.0
    memory_s: float = 0.0
    communication_s: float = 0.0
    overlapped_s: float = 0.0
    exposed_s: float = 0.0
    latency_s: float = 0.0
    copy_wait_s: float = 0.0
    hbm_bytes: float = 0.0
    flops: float = 0.0
    by_kind: Counter[str] = field(default_factory=Counter)
    unestimated: Counter[str] = field(default_factory=Counter)
    unestimated_s: float = 0.0

    def add(self, other: "Account", times: int) -> None:
        """Add another walk, so many times."""
        for name in (
            "total_s", "compute_s", "memory_s", "communication_s", "overlapped_s", "exposed_s", "latency_s",
            "copy_wait_s", "hbm_bytes", "flops", "unestimated_s",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        for kind, seconds in other.by_kind.items():
            self.by_kind[kind] += seconds * times
        for opcode, count in other.unestimated.items():
            self.unestimated[opcode] += count * times


@dataclass(frozen=True, slots=True)
class Timeline:
    """A walk's account, the bars of its trace (of every loop, the first turn), and the loops that they stand in."""

    account: Account
    events: list[Event]
    loops: Sequence[Loop] = ()


def walk(schedule: Schedule, machine: CostModel) -> Timeline:
    """Time a schedule.

    Raises:
        ShardbenchError: a collective is among devices that no links of the machine join.
    """
    walker = _Walker(schedule, machine)
    account = walker.computation(schedule.entry, 0.0)
    return Timeline(account, walker.events, walker.loops)


@dataclass(slots=True)
class _Running:
    """What a start began."""

    end_s: float
    seconds: float
    collective: bool
    step: Step


class _Walker:
    def __init__(self, schedule: Schedule, machine: CostModel) -> None:
        self.schedule, self.machine = schedule, machine
        self.events: list[Event] = []
        self.loops: list[Loop] = []
        self.turns = 1
        self.loop = 0
        self._indices = itertools.count(1)

    def computation(self, name: str, origin: float) -> Account:
        """Walk one computation that begins at ``origin`` with all lanes free."""
        account = Account()
        now, lanes, running = 0.0, dict[str, float](), dict[str, _Running]()
        for step in self.schedule.computations[name]:
            now = self._step(step, now, origin, account, lanes, running)
        for each in running.values():  # begun here and ended in a later turn: it ends with this one at the latest
            now = self._wait(each, now, origin, account)
        account.total_s = now
        return account

    def _step(
        self,
        step: Step,
        now: float,
        origin: float,
        account: Account,
        lanes: dict[str, float],
        running: dict[str, _Running],
    ) -> float:
        account.hbm_bytes += step.hbm_bytes
        account.memory_s += step.hbm_bytes / self.machine.hbm_bytes_per_s
        if step.kind in (Kind.LOOP, Kind.CALL):
            return self._turns(step, now, origin, account)
        if step.kind is Kind.BRANCH:
            return self._branch(step, now, origin, account)
        if step.kind is Kind.COMPUTE:
            work = self._worked(step, account)
            note = MATMUL if step.matmul else step.opcode
            told = {"flops": work.flops, "cycles": step.cycles, "bound": work.bound}
            self._event(COMPUTE, step, origin + now, work.seconds, note, **told)
            return now + work.seconds
        if step.kind is Kind.COLLECTIVE:
            assert step.collective is not None
            timed = self.machine.exchange(step.collective)
            start = max([now, *(lanes.get(lane, 0.0) for lane in timed.lanes)])
            self._communicated(step, timed, account)
            account.exposed_s += start + timed.seconds - now
            self._occupy(step, timed, start, origin, lanes)
            self._event(COMPUTE, step, origin + now, start + timed.seconds - now, EXPOSED)
            return start + timed.seconds
        if step.kind is Kind.START:
            self._start(step, now, origin, account, lanes, running)
        elif step.kind is Kind.DONE:
            # Updates of a pair pass it on; the last of the chain waits.
            begun = running.pop(step.starts or "", None)
            if begun is not None and step.opcode == "async-update":
                running[step.name] = begun
            elif begun is not None:
                return self._wait(begun, now, origin, account)
        return now

    def _turns(self, step: Step, now: float, origin: float, account: Account) -> float:
        around, parent = self.turns, self.loop
        for name in step.called if step.trips else ():
            index = next(self._indices) if step.trips > 1 else parent
            self.turns, self.loop = around * step.trips, index
            turn = self.computation(name, origin + now)
            self.turns, self.loop = around, parent
            if step.trips > 1:
                rest, start = step.trips - 1, origin + now
                name_of_rest, end = f"{rest} more turns of {step.name}", start + turn.total_s
                self.events.append(
                    Event(COMPUTE, name_of_rest, end, turn.total_s * rest, TURNS, turns=0, loop=parent, repeats=index)
                )
                self.loops.append(
                    Loop(
                        index=index,
                        name=step.name,
                        parent=parent,
                        turns=step.trips,
                        runs=around,
                        start_s=start,
                        turn_s=turn.total_s,
                    )
                )
            account.add(turn, step.trips)
            now += turn.total_s * step.trips
        return now

    def _branch(self, step: Step, now: float, origin: float, account: Account) -> float:
        """The longest branch: which one runs is not known."""
        mark, longest, kept = len(self.events), Account(), list[Event]()
        outer, loops = len(self.loops), list[Loop]()
        for name in step.called:
            turn = self.computation(name, origin + now)
            if turn.total_s >= longest.total_s:
                longest, kept, loops = turn, self.events[mark:], self.loops[outer:]
            del self.events[mark:], self.loops[outer:]
        self.events += kept
        self.loops += loops
        account.add(longest, 1)
        return now + longest.total_s

    def _start(
        self,
        step: Step,
        now: float,
        origin: float,
        account: Account,
        lanes: dict[str, float],
        running: dict[str, _Running],
    ) -> None:
        if step.collective is not None:
            timed = self.machine.exchange(step.collective)
            start = max([now, *(lanes.get(lane, 0.0) for lane in timed.lanes)])
            self._communicated(step, timed, account)
            self._occupy(step, timed, start, origin, lanes)
            running[step.name] = _Running(start + timed.seconds, timed.seconds, True, step)
            return
        seconds = step.moved_bytes / self.machine.hbm_bytes_per_s
        start = max(now, lanes.get(COPY, 0.0))
        lanes[COPY] = start + seconds
        self._event(COPY, step, origin + start, seconds, step.opcode)
        running[step.name] = _Running(start + seconds, seconds, False, step)

    def _wait(self, begun: _Running, now: float, origin: float, account: Account) -> float:
        waited = max(0.0, begun.end_s - now)
        self._event(COMPUTE, begun.step, origin + now, waited, EXPOSED if begun.collective else COPY_WAIT)
        if begun.collective:
            account.exposed_s += waited
            account.overlapped_s += max(0.0, begun.seconds - waited)
        else:
            account.copy_wait_s += waited
        return now + waited

    def _worked(self, step: Step, account: Account) -> ComputeTime:
        work = self.machine.work(step)
        account.compute_s += work.seconds
        account.flops += work.flops or 0.0
        account.by_kind[step.opcode] += work.seconds  # type: ignore[assignment]
        if not work.is_estimated:
            account.unestimated[step.opcode] += 1
            account.unestimated_s += work.seconds
        return work

    def _communicated(self, step: Step, timed: CollectiveTime, account: Account) -> None:
        assert step.collective is not None
        account.communication_s += timed.seconds
        account.latency_s += timed.latency_s
        account.by_kind[step.collective.opcode] += timed.seconds  # type: ignore[assignment]

    def _occupy(self, step: Step, timed: CollectiveTime, start: float, origin: float, lanes: dict[str, float]) -> None:
        assert step.collective is not None
        for lane in timed.lanes:
            lanes[lane] = start + timed.seconds
            note, latency_s = step.collective.opcode, timed.latency_s
            self._event(lane, step, origin + start, timed.seconds, note, latency_s=latency_s, bound=LINK)

    def _event(self, lane: str, step: Step, start: float, seconds: float, note: str, **told: Any) -> None:
        if seconds > 0:
            moved = step.collective.whole_bytes if step.collective is not None else step.hbm_bytes
            moved = 0.0 if note in (EXPOSED, COPY_WAIT) else moved
            self.events.append(Event(lane, step.name, start, seconds, note, self.turns, moved, loop=self.loop, **told))
