"""Walks a schedule: one compute stream, the links between chips, and the engine that copies to and from HBM.

Instructions issue in order. A computation occupies the stream for the time that the cost model gives. A synchronous
collective occupies the stream and its links. An asynchronous one (``-start``) runs on its links, a copy on the copy
engine, as soon as they are free, and ``-done`` waits for it: it overlaps the instructions between the two. What the
stream and the copies move shares HBM's bandwidth. A loop's body is walked once and multiplied by its trip count; a turn
waits for whatever it started, also where the next one uses it.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from engines.compiled.cost.account import Account, Branch
from engines.compiled.cost.bars import Event, Loop
from engines.compiled.cost.base import LINK, CollectiveTime, ComputeTime, CostModel
from engines.compiled.cost.beside import Beside, Running
from engines.compiled.hlo.schedule import UPDATE, Kind, Schedule, Step

COMPUTE: Final = "compute"
COPY: Final = "copy"
MATMUL: Final = "matmul"
EXPOSED: Final = "exposed"
COPY_WAIT: Final = "copy wait"
TURNS: Final = "turns"
HOST_LINK: Final = "host link"
NO_SHARES: Final[Mapping[str, float]] = {}


@dataclass(frozen=True, slots=True)
class Timeline:
    """A walk's account, the bars of its trace (of every loop, the first iteration), the loops around them, and the
    conditionals.
    """

    account: Account
    events: list[Event]
    loops: Sequence[Loop] = ()
    branches: Sequence[Branch] = ()


def walk(
    schedule: Schedule,
    cost: CostModel,
    *,
    least: bool = False,
    host_bytes_per_s: float | None = None,
    shares: Mapping[str, float] = NO_SHARES,
) -> Timeline:
    """Time a schedule: with the longest branch of each conditional, the most turns of a loop of unknown trip count and
    instructions that no rule knows at their roofline; with ``least`` the shortest, the fewest and nothing.
    Asynchronous transfers from the host's memory take the link of that rate, where it is known.

    ``shares`` says of conditionals, by a part of their operation's path, how often of all times the longest branch
    runs: such a one takes the mean of its longest and its shortest, and the longest is drawn.

    Raises:
        ShardbenchError: no links connect the devices of a collective.
    """
    walker = _Walker(schedule, cost, least, host_bytes_per_s, shares)
    account = walker.computation(schedule.entry, 0.0)
    return Timeline(account, walker.events, walker.loops, walker.branches)


class _Walker:
    def __init__(
        self,
        schedule: Schedule,
        cost: CostModel,
        least: bool,
        host_bytes_per_s: float | None,
        shares: Mapping[str, float],
    ) -> None:
        self.host_bytes_per_s, self.shares = host_bytes_per_s, shares
        self.schedule, self.cost, self.least = schedule, cost, least
        self.branches: list[Branch] = []
        self.events: list[Event] = []
        self.loops: list[Loop] = []
        self.turns = 1
        self.loop = 0
        self._indices = itertools.count(1)

    def computation(self, name: str, origin: float) -> Account:
        """Walk one computation that begins at ``origin`` with all lanes free."""
        account = Account()
        now, beside = 0.0, Beside()
        for step in self.schedule.computations[name]:
            now = self._step(step, now, origin, account, beside)
        for each in [*beside.sending, *beside.copying]:  # done in a later iteration: charged to this one
            now = self._wait(each, now, origin, account, beside)
        account.total_s = now
        return account

    def _step(self, step: Step, now: float, origin: float, account: Account, beside: Beside) -> float:
        account.hbm_bytes += step.hbm_bytes
        account.memory_s += step.hbm_bytes / self.cost.hbm_bytes_per_s
        if step.kind in (Kind.LOOP, Kind.CALL):
            return self._loop(step, now, origin, account)
        if step.kind is Kind.BRANCH:
            return self._branch(step, now, origin, account)
        if step.kind is Kind.COMPUTE:
            computed = self._computed(step, account)
            note = MATMUL if step.matmul else step.opcode
            known = {"flops": computed.flops, "cycles": step.cycles, "bound": computed.bound}
            self._event(COMPUTE, step, origin + now, computed.seconds, note, **known)
            beside.copies.share(now, computed.seconds, step.hbm_bytes / self.cost.hbm_bytes_per_s)
            return now + computed.seconds
        if step.kind is Kind.COLLECTIVE:
            assert step.collective is not None
            timed = self.cost.collective_time(step.collective)
            start = max([now, *(beside.links.get(lane, 0.0) for lane in timed.lanes)])
            self._communicated(step, timed, account)
            account.exposed_s += start + timed.seconds - now
            self._occupy(step, timed, start, origin, beside.links)
            beside.copies.share(start, timed.seconds, step.hbm_bytes / self.cost.hbm_bytes_per_s)
            self._event(COMPUTE, step, origin + now, start + timed.seconds - now, EXPOSED)
            return start + timed.seconds
        if step.kind is Kind.START:
            self._start(step, now, origin, account, beside)
        elif step.kind is Kind.DONE and step.opcode.endswith(UPDATE):
            # An update passes the operation on; the last of the chain waits.
            beside.rename(step.starts or "", step.name)
        elif step.kind is Kind.DONE:
            return self._wait(step.starts or "", now, origin, account, beside)
        return now

    def _loop(self, step: Step, now: float, origin: float, account: Account) -> float:
        outer, parent = self.turns, self.loop
        trips = step.least_trips if self.least and step.kind is Kind.LOOP else step.trips
        for name in step.called if trips else ():
            index = next(self._indices) if trips > 1 else parent
            self.turns, self.loop = outer * trips, index
            once = self.computation(name, origin + now)
            self.turns, self.loop = outer, parent
            if trips > 1:
                rest, start = trips - 1, origin + now
                name_of_rest, end = f"{rest} more turns of {step.name}", start + once.total_s
                self.events.append(
                    Event(COMPUTE, name_of_rest, end, once.total_s * rest, TURNS, turns=0, loop=parent, repeats=index)
                )
                self.loops.append(
                    Loop(
                        index=index,
                        name=step.name,
                        parent=parent,
                        turns=trips,
                        runs=outer,
                        start_s=start,
                        turn_s=once.total_s,
                    )
                )
            account.add(once, trips)
            now += once.total_s * trips
        return now

    def _branch(self, step: Step, now: float, origin: float, account: Account) -> float:
        """The longest branch, or the shortest, as it is not known which one runs; with a share the mean of both."""
        share = next((share for part, share in self.shares.items() if part in step.operation.split("/")), None)
        mark, outer = len(self.events), len(self.loops)
        walked, drawn = list[Account](), list[tuple[list[Event], list[Loop]]]()
        for name in step.called:
            walked.append(self.computation(name, origin + now))
            drawn.append((self.events[mark:], self.loops[outer:]))
            del self.events[mark:], self.loops[outer:]
        ranked = sorted(range(len(walked)), key=lambda number: walked[number].total_s)
        shortest, longest = ranked[0], ranked[-1]
        chosen = shortest if self.least and share is None else longest
        events, loops = drawn[chosen]
        self.events += events
        self.loops += loops
        if share is None:
            self.branches.append(Branch(step.name, self.turns, tuple(each.total_s for each in walked)))
            account.add(walked[chosen], 1)
            return now + walked[chosen].total_s
        mean = Account()
        mean.add(walked[longest], share)
        mean.add(walked[shortest], 1 - share)
        account.add(mean, 1)
        return now + mean.total_s

    def _start(self, step: Step, now: float, origin: float, account: Account, beside: Beside) -> None:
        if step.collective is not None:
            timed = self.cost.collective_time(step.collective)
            start = max([now, *(beside.links.get(lane, 0.0) for lane in timed.lanes)])
            self._communicated(step, timed, account)
            self._occupy(step, timed, start, origin, beside.links)
            beside.sending[step.name] = Running(start + timed.seconds, timed.seconds, step)
            return
        if step.with_host and self.host_bytes_per_s is not None:
            seconds = step.moved_bytes / self.host_bytes_per_s
            start = max(now, beside.links.get(HOST_LINK, 0.0))
            beside.links[HOST_LINK] = start + seconds
            account.communication_s += seconds
            account.by_kind[step.opcode] += seconds  # type: ignore[assignment]
            self._event(HOST_LINK, step, origin + start, seconds, step.opcode, bound=LINK)
            beside.sending[step.name] = Running(start + seconds, seconds, step)
            return
        seconds = 0.0 if self.least and not step.known else step.moved_bytes / self.cost.hbm_bytes_per_s
        if step.with_host:
            self._unestimated(step, seconds, account)
            account.at_least_s += seconds
        beside.copies.issue(step.name, now, seconds)
        beside.copying[step.name] = step

    def _wait(self, name: str, now: float, origin: float, account: Account, beside: Beside) -> float:
        """The time when the operation of this name is done; now if it started in another turn of the loop."""
        if name in beside.sending:
            sent = beside.sending.pop(name)
            waited = max(0.0, sent.end_s - now)
            account.exposed_s += waited
            account.overlapped_s += max(0.0, sent.seconds - waited)
            self._event(COMPUTE, sent.step, origin + now, waited, EXPOSED)
            return now + waited
        copy, step = beside.copies.pop(name), beside.copying.pop(name, None)
        if copy is None or step is None:
            return now
        waited = max(0.0, copy.end_s - now)
        account.copy_wait_s += waited
        self._event(COPY, step, origin + copy.start_s, copy.seconds, step.opcode)
        self._event(COMPUTE, step, origin + now, waited, COPY_WAIT)
        return now + waited

    def _computed(self, step: Step, account: Account) -> ComputeTime:
        timed = self.cost.compute_time(step)
        if self.least and not step.known:
            timed = replace(timed, seconds=timed.least_s)
        account.compute_s += timed.seconds
        account.flops += timed.flops or 0.0
        account.by_kind[step.opcode] += timed.seconds  # type: ignore[assignment]
        if not timed.is_estimated:
            self._unestimated(step, timed.seconds, account)
        if step.with_host or (not timed.is_estimated and 0 < timed.least_s == timed.seconds):
            account.at_least_s += timed.seconds
        if not step.known:
            account.unknown_s += timed.seconds
        return timed

    def _unestimated(self, step: Step, seconds: float, account: Account) -> None:
        label = f"{step.label} with the host's memory" if step.with_host else step.label
        account.unestimated[label] += 1
        account.unestimated_s += seconds
        account.unestimated_by_label_s[label] += seconds  # type: ignore[assignment]

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

    def _event(self, lane: str, step: Step, start: float, seconds: float, note: str, **more: Any) -> None:
        if seconds > 0:
            moved = step.collective.whole_bytes if step.collective is not None else step.hbm_bytes
            moved = 0.0 if note in (EXPOSED, COPY_WAIT) else moved
            self.events.append(Event(lane, step.name, start, seconds, note, self.turns, moved, loop=self.loop, **more))
