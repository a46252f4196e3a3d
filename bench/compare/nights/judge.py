"""The verdict on the last of many nights."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.compare.nights.history import History, Machine, histories
from bench.compare.nights.read import Night
from bench.compare.nights.steps import Step, StepRules, common_noise, find_steps, smallest_found
from bench.compare.verdicts import EXACT, is_wrong, question

Kind = Literal["broken", "slower", "suspected", "not judged", "mended", "faster", "changed", "still slower"]
ORDER: Final[tuple[Kind, ...]] = (
    "broken",
    "slower",
    "suspected",
    "not judged",
    "still slower",
    "mended",
    "faster",
    "changed",
)
WORSE: Final = frozenset({"broken", "slower"})
MOST_CHANGES: Final = 4
"""Facts told about what changed with a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is to be said of one point. ``since`` is the night of the change; ``ratio`` is new time over old.

    ``changed`` says what else changed between the night before and ``since``: commit, versions, clocks.
    """

    kind: Kind
    history: History
    since: str
    reason: str
    ratio: float | None = None
    changed: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``judged`` points of the last night had an earlier night to be compared with; ``first`` had none.

    ``missing`` were answered the night before and not now. ``smallest`` is the smallest step that two nights confirm
    with a probability of 95%, by machine.
    """

    day: str
    nights: int
    findings: Sequence[Finding]
    judged: int
    first: Sequence[History]
    missing: Sequence[History]
    smallest: dict[Machine, float]
    damaged: Sequence[str]

    @property
    def worse(self) -> list[Finding]:
        """New regressions."""
        return [each for each in self.findings if each.kind in WORSE]

    @property
    def compared_nothing(self) -> bool:
        """Whether earlier nights exist and none of them could be compared with."""
        return self.nights > 1 and not self.judged

    def of(self, *kinds: Kind) -> list[Finding]:
        """The findings of some kinds."""
        return [each for each in self.findings if each.kind in kinds]


def judge(nights: Sequence[Night], rules: StepRules, threshold: float) -> Verdict:
    """Judge the last of ``nights`` (oldest first, at least one) by all before it.

    Measured points by :mod:`steps`; times that are computed or published by any difference, beyond ``threshold`` as
    slower or faster.
    """
    last = nights[-1]
    found = histories(nights)
    tonight = [each for each in found if each.last.day == last.day]
    noise = _noise_by_machine(found)
    findings: list[Finding] = []
    first, judged = [], 0
    for history in tonight:
        if len(history.answers) == 1:
            moved = _moved(history, found)
            if moved is not None:
                findings.append(moved)
            else:
                first.append(history)
            continue
        told = _judge_one(history, noise, rules, threshold)
        judged += not any(each.kind == "not judged" for each in told)
        findings += told
    findings.sort(key=lambda each: (ORDER.index(each.kind), -abs(math.log(each.ratio or 1.0))))
    before = nights[-2].day if len(nights) > 1 else None
    return Verdict(
        day=last.day,
        nights=len(nights),
        findings=findings,
        judged=judged,
        first=first,
        missing=[each for each in found if each.last.day == before],
        smallest={
            machine: smallest_found(each, _longest(tonight, machine), rules)
            for machine, each in noise.items()
            if not math.isnan(each) and any(history.machine == machine for history in tonight)
        },
        damaged=[line for night in nights for line in night.damaged],
    )


def steps_of(history: History, noise: dict[Machine, float], rules: StepRules) -> list[Step]:
    """The steps of a measured history, by indices of :attr:`History.timed`."""
    assert history.machine is not None
    return find_steps(history.times_s, noise.get(history.machine, math.nan), rules)


def _noise_by_machine(found: Iterable[History]) -> dict[Machine, float]:
    logs: dict[Machine, list[list[float]]] = {}
    for each in found:
        if each.machine is not None:
            logs.setdefault(each.machine, []).append([math.log(time) for time in each.times_s])
    return {machine: common_noise(series) for machine, series in logs.items()}


def _longest(found: Iterable[History], machine: Machine) -> int:
    return max(len(each.timed) for each in found if each.machine == machine)


def _moved(history: History, found: Sequence[History]) -> Finding | None:
    """What is said of a point that has an earlier night on another machine alone."""
    asked = question(history.last.row)
    others = [each for each in found if each is not history and question(each.last.row) == asked]
    if not others:
        return None
    names = sorted({" ".join(filter(None, each.machine or ())) for each in others})
    here = " ".join(filter(None, history.machine or ()))
    reason = f"the first night on {here}; earlier nights were on {', '.join(names)}"
    return Finding(kind="not judged", history=history, since=history.last.day, reason=reason)


def _judge_one(history: History, noise: dict[Machine, float], rules: StepRules, threshold: float) -> list[Finding]:
    now = history.last
    status = _status_change(history)
    if status is not None:
        return [status]
    if now.row.status != "ok":
        return []
    if now.row.source != "measured":
        return _computed(history, threshold)
    if now.time_s is None:
        reason = f"not valid: {now.row.invalid_reason}"
        return [Finding(kind="not judged", history=history, since=now.day, reason=reason)]
    return _measured(history, noise, rules)


def _status_change(history: History) -> Finding | None:
    """A point that broke or was mended tonight: no second night is needed."""
    before, now = history.answers[-2].row, history.last.row
    since = history.last.day
    changed = tuple(what_changed(history, len(history.answers) - 1))
    if is_wrong(now) and not is_wrong(before):
        reason = f"output differs from the reference by {now.max_relative_error:.2g} relative"
        return Finding(kind="broken", history=history, since=since, reason=reason, changed=changed)
    if before.status == now.status:
        return None
    kind: Kind = "broken" if before.status == "ok" else "mended" if now.status == "ok" else "changed"
    cause = f": {now.error}" if now.error else ""
    reason = f"{before.status} before, {now.status} now{cause}"
    return Finding(kind=kind, history=history, since=since, reason=reason, changed=changed)


def _computed(history: History, threshold: float) -> list[Finding]:
    """A time that is computed or published: any difference counts, at once."""
    before, now = history.answers[-2].time_s, history.last.time_s
    if before is None or now is None:
        return []
    ratio = now / before
    if abs(ratio - 1) <= EXACT:
        return []
    kind: Kind = "slower" if ratio > 1 + threshold else "faster" if ratio < 1 / (1 + threshold) else "changed"
    changed = tuple(what_changed(history, len(history.answers) - 1))
    return [
        Finding(
            kind=kind, history=history, since=history.last.day, reason="computed anew", ratio=ratio, changed=changed
        )
    ]


def _measured(history: History, noise: dict[Machine, float], rules: StepRules) -> list[Finding]:
    timed = history.timed
    steps = steps_of(history, noise, rules)
    last = len(timed) - 1
    if steps and steps[-1].confirmed == last:
        step = steps[-1]
        place = history.answers.index(timed[step.first])
        return [
            Finding(
                kind="slower" if step.ratio > 1 else "faster",
                history=history,
                since=timed[step.first].day,
                reason=f"two nights agree; nights differ by {step.noise:.1%} from each other",
                ratio=step.ratio,
                changed=tuple(what_changed(history, place)),
            )
        ]
    found = []
    if steps and steps[-1].ratio > 1:
        step = steps[-1]
        since = timed[step.first].day
        found.append(
            Finding(
                kind="still slower", history=history, since=since, reason="told when it was found", ratio=step.ratio
            )
        )
    begin = steps[-1].first if steps else 0
    if last > begin:
        suspected = _suspected(history, begin, noise, rules)
        if suspected is not None:
            found.append(suspected)
    return found


def _suspected(history: History, begin: int, noise: dict[Machine, float], rules: StepRules) -> Finding | None:
    """The last night alone beyond its level on the slow side: a step, if the next night agrees."""
    assert history.machine is not None
    times = history.times_s
    would_be = find_steps([*times[begin:], times[-1]], noise.get(history.machine, math.nan), rules)
    if not would_be or would_be[-1].first != len(times) - 1 - begin or would_be[-1].ratio <= 1:
        return None
    reason = "one night alone; the next one decides"
    return Finding(kind="suspected", history=history, since=history.last.day, reason=reason, ratio=would_be[-1].ratio)


def what_changed(history: History, place: int) -> list[str]:
    """What differs between the answers at ``place`` and before it: commit, program, versions, flags."""
    before, now = history.answers[place - 1].row, history.answers[place].row
    found = []
    if before.git_sha != now.git_sha:
        found.append(f"commit {(before.git_sha or 'unknown')[:12]} → {(now.git_sha or 'unknown')[:12]}")
    versions = sorted({*(before.versions or {}), *(now.versions or {})})
    for name in versions:
        then, since = (row.versions.get(name) if row.versions else None for row in (before, now))
        if then != since:
            found.append(f"{name} {then} → {since}")
    if before.program_id != now.program_id and not found:
        found.append("another program")
    if len(found) > MOST_CHANGES:
        found = [*found[:MOST_CHANGES], f"and {len(found) - MOST_CHANGES} more"]
    return found
