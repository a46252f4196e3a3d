"""The verdict on the last of many nights, and the steps of all of them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.compare.nights.changes import (
    Change,
    Worse,
    broken_since,
    changes_of,
    is_broken,
    still_slower,
    what_changed,
)
from bench.compare.nights.history import History, Machine, histories
from bench.compare.nights.read import Night
from bench.compare.nights.steps import LEAST_NIGHTS, StepRules, common_noise, find_steps, smallest_found
from bench.compare.verdicts import EXACT, is_wrong, question

Kind = Literal[
    "broken", "slower", "suspected", "not judged", "still broken", "still slower", "mended", "faster", "changed"
]
ORDER: Final[tuple[Kind, ...]] = Kind.__args__  # type: ignore[attr-defined]
WORSE: Final = frozenset({"broken", "slower"})


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
class Judged:
    """One point over all nights: its steps, and what is said of it on the last night (nothing if it had no answer)."""

    history: History
    changes: Sequence[Change]
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``judged`` points of the last night had earlier nights to be compared with, ``young`` too few of them yet,
    ``first`` none.

    ``points`` are all that were ever asked, in the order in which they were first. ``missing`` were answered the night
    before and not now. ``not_compared`` are machines of which no point could be compared, because their names or their
    rows changed. ``smallest`` is the smallest step that two nights confirm with a probability of 95%, by machine.
    """

    day: str
    nights: int
    findings: Sequence[Finding]
    points: Sequence[Judged]
    judged: int
    young: Sequence[History]
    first: Sequence[History]
    missing: Sequence[History]
    not_compared: Sequence[Machine]
    smallest: dict[Machine, float]
    damaged: Sequence[str]

    @property
    def worse(self) -> list[Finding]:
        """New regressions."""
        return [each for each in self.findings if each.kind in WORSE]

    @property
    def compared_nothing(self) -> bool:
        """Whether earlier nights exist and none of them can ever be compared with."""
        return self.nights > 1 and not self.judged and not self.young

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
    noise = _noise_by_machine(found)
    by_question: dict[object, list[History]] = {}
    for history in found:
        by_question.setdefault(question(history.last.row), []).append(history)
    points: list[Judged] = []
    first: list[History] = []
    young: list[History] = []
    judged: list[History] = []
    for history in found:
        changes = changes_of(history, noise, rules)
        told: list[Finding] = []
        if history.last.day != last.day:
            pass
        elif len(history.answers) == 1:
            moved = _moved(history, by_question[question(history.last.row)])
            told = [] if moved is None else [moved]
            if moved is None:
                first.append(history)
        else:
            told = _judge_one(history, changes, noise, rules, threshold)
            if not any(each.kind == "not judged" for each in told):
                (young if _is_young(history) else judged).append(history)
        points.append(Judged(history=history, changes=changes, findings=told))
    findings = [each for point in points for each in point.findings]
    findings.sort(key=lambda each: (ORDER.index(each.kind), -abs(math.log(each.ratio or 1.0))))
    before = nights[-2].day if len(nights) > 1 else None
    tonight = [each for each in found if each.last.day == last.day]
    compared = {each.machine for each in (*judged, *young)}
    unjudged = {each.history.machine for each in findings if each.kind == "not judged"} - compared
    return Verdict(
        day=last.day,
        nights=len(nights),
        findings=findings,
        points=points,
        judged=len(judged),
        young=young,
        first=first,
        missing=[each for each in found if each.last.day == before],
        not_compared=sorted(each for each in unjudged if each is not None),
        smallest={
            machine: smallest_found(each, _longest(tonight, machine), rules)
            for machine, each in noise.items()
            if not math.isnan(each) and any(history.machine == machine for history in tonight)
        },
        damaged=[line for night in nights for line in night.damaged],
    )


def _noise_by_machine(found: Iterable[History]) -> dict[Machine, float]:
    logs: dict[Machine, list[list[float]]] = {}
    for each in found:
        if each.machine is not None:
            logs.setdefault(each.machine, []).append([math.log(time) for time in each.times_s])
    return {machine: common_noise(series) for machine, series in logs.items()}


def _longest(found: Iterable[History], machine: Machine) -> int:
    return max(len(each.timed) for each in found if each.machine == machine)


def _is_young(history: History) -> bool:
    """Whether a measured point has fewer nights than a step needs, so that no step can have been told of it."""
    return (
        history.machine is not None
        and not any(is_broken(each.row) for each in history.answers[-2:])
        and len(history.timed) < LEAST_NIGHTS
    )


def _moved(history: History, same: Sequence[History]) -> Finding | None:
    """What is said of a point that has an earlier night on another machine alone."""
    others = [each for each in same if each is not history]
    if not others:
        return None
    names = sorted({" ".join(filter(None, each.machine or ())) for each in others})
    here = " ".join(filter(None, history.machine or ()))
    reason = f"the first night on {here}; earlier nights were on {', '.join(names)}"
    return Finding(kind="not judged", history=history, since=history.last.day, reason=reason)


def _judge_one(
    history: History, changes: Sequence[Change], noise: dict[Machine, float], rules: StepRules, threshold: float
) -> list[Finding]:
    now, last = history.last, len(history.answers) - 1
    status = _status_change(history)
    since = broken_since(history)
    if since is not None and since < last:
        reason = f"told when it was found: {now.row.error or now.row.status}"
        day = history.answers[since].day
        status.append(Finding(kind="still broken", history=history, since=day, reason=reason))
    if status or now.row.status != "ok":
        return status
    if now.row.source == "measured" and now.time_s is None:
        reason = f"not valid: {now.row.invalid_reason}"
        return [Finding(kind="not judged", history=history, since=now.day, reason=reason)]
    if history.machine is None:
        return _computed(history, changes, threshold)
    return _measured(history, changes, noise, rules)


def _status_change(history: History) -> list[Finding]:
    """A point that broke or was mended tonight: no second night is needed."""
    before, now = history.answers[-2].row, history.last.row
    if before.status == now.status and is_wrong(now) == is_wrong(before):
        return []
    kind: Kind = "mended" if not is_broken(now) else "changed" if is_broken(before) else "broken"
    if now.status == before.status:
        reason = "output agrees with the reference again"
        if is_wrong(now):
            reason = f"output differs from the reference by {now.max_relative_error:.2g} relative"
    else:
        cause = f": {now.error}" if now.error else ""
        reason = f"{before.status} before, {now.status} now{cause}"
    changed = tuple(what_changed(history, len(history.answers) - 1))
    return [Finding(kind=kind, history=history, since=history.last.day, reason=reason, changed=changed)]


def _computed(history: History, changes: Sequence[Change], threshold: float) -> list[Finding]:
    """A time that is computed or published: any difference counts, at once, and small ones add up."""
    last = len(history.answers) - 1
    worse = still_slower(changes, beyond=threshold, back=EXACT)
    if not changes or changes[-1].first != last:
        return _still(history, worse)
    ratio, since = changes[-1].ratio, last
    earlier = still_slower(changes[:-1], beyond=threshold, back=EXACT)
    kind: Kind = "slower" if ratio > 1 + threshold else "faster" if ratio < 1 / (1 + threshold) else "changed"
    reason = "computed anew"
    if kind == "changed" and worse is not None and earlier is None:
        kind, ratio, since, reason = "slower", worse.ratio, worse.first, "computed anew, small differences together"
    told = _finding(kind, history, since, ratio, reason)
    return [told] if worse is None or worse.first == since else [told, *_still(history, worse)]


def _measured(
    history: History, changes: Sequence[Change], noise: dict[Machine, float], rules: StepRules
) -> list[Finding]:
    last = len(history.answers) - 1
    half = rules.smallest / 2  # a level's median may be nearer than the two nights that were told
    worse = still_slower(changes, beyond=half, back=half)
    if changes and changes[-1].confirmed == last:
        step = changes[-1]
        reason = f"two nights agree; nights differ by {step.noise:.1%} from each other"
        told = _finding("slower" if step.ratio > 1 else "faster", history, step.first, step.ratio, reason)
        return [told] if worse is None or worse.first == step.first else [told, *_still(history, worse)]
    found = _still(history, worse)
    suspected = _suspected(history, changes, noise, rules)
    return found if suspected is None else [*found, suspected]


def _finding(kind: Kind, history: History, first: int, ratio: float, reason: str) -> Finding:
    """A step at the answer ``first``, with what changed there."""
    return Finding(
        kind=kind,
        history=history,
        since=history.answers[first].day,
        reason=reason,
        ratio=ratio,
        changed=tuple(what_changed(history, first)),
    )


def _still(history: History, worse: Worse | None) -> list[Finding]:
    """A regression that an earlier night told of."""
    if worse is None:
        return []
    return [_finding("still slower", history, worse.first, worse.ratio, "told when it was found")]


def _suspected(
    history: History, changes: Sequence[Change], noise: dict[Machine, float], rules: StepRules
) -> Finding | None:
    """The last night alone beyond its level on the slow side: a step, if the next night agrees."""
    assert history.machine is not None
    begin = changes[-1].first if changes else 0
    level = [each.time_s for each in history.answers[begin:] if each.time_s is not None]
    if len(level) < 2:
        return None
    would_be = find_steps([*level, level[-1]], noise.get(history.machine, math.nan), rules)
    if not would_be or would_be[-1].first != len(level) - 1 or would_be[-1].ratio <= 1:
        return None
    reason = "one night alone; the next one decides"
    return Finding(kind="suspected", history=history, since=history.last.day, reason=reason, ratio=would_be[-1].ratio)
