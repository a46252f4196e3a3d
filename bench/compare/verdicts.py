"""Comparison of two sets of rows: which points became slower, faster or different, and how significantly."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from bench.measure.significance import Ratio, Runs, between_processes, holm, mann_whitney, median_ratio
from bench.rows.labels import layout_label, point_label
from bench.rows.timed_by import timing_change
from engines.core.row import POINT_FIELDS, Row

Verdict = Literal["broken", "slower", "changed", "not judged", "faster", "mended", "same"]
REGRESSIONS: Final = frozenset({"broken", "slower"})
CI_LEVEL: Final = 0.95
RESAMPLES: Final = 2000
NOT_SIGNIFICANT: Final = "not significant"
"""Reason of a verdict where the ratio is beyond the threshold, but may be chance."""
EXACT: Final = 1e-9
"""Relative difference below which two computed times are equal: sums in another order differ by less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A measured point is slower (faster) if its median's ratio is beyond ``threshold`` and the test is significant.

    ``alpha`` bounds the probability of any false positive among all points (Holm). Times of different hosts or device
    kinds are judged only with ``allow_hosts``. ``by_process``: a point's samples are the medians of the
    processes that measured it the same day, else those of the fastest of them.
    """

    threshold: float = 0.05
    alpha: float = 0.01
    allow_hosts: bool = False
    by_process: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Old and new row of one point. ``ratio`` is new over old, ``p_value`` is Holm's; None without a test.

    ``runs`` are the processes that were judged; ``old`` and ``new`` are then those of median time.
    """

    old: Row
    new: Row
    verdict: Verdict
    reason: str
    ratio: Ratio | None = None
    p_value: float | None = None
    runs: Runs | None = None

    @property
    def label(self) -> str:
        """The point in words."""
        return label(self.new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Points in both sets, the worst first; points in only one of them."""

    changes: Sequence[Change]
    only_old: Sequence[Row]
    only_new: Sequence[Row]

    @property
    def regressions(self) -> list[Change]:
        """Points that are slower or broken."""
        return [change for change in self.changes if change.verdict in REGRESSIONS]


def question(row: Row) -> tuple[Any, ...]:
    """The requested point: keys that were left to the engine count as open, whatever it chose.

    The engine and the kind of evidence are part of it, and for published rows the source.
    """
    values = {name: None if name in row.chosen else getattr(row, name) for name in POINT_FIELDS}
    stated = [None if value == "auto" else value for value in values.values()]
    return (*map(str, stated), row.source, row.system, row.reference)


def settled(rows: Iterable[Row]) -> list[Row]:
    """Rows in their order; of several measurements of one point (same question, same code) on one day only the fastest.

    Other load on the machine can only make a run slower, so the fastest run is the least disturbed one. Valid rows come
    before invalid ones; rows without a time or with a wrong output are kept.
    """
    best: dict[tuple[Any, ...], tuple[int, Row]] = {}
    kept: list[tuple[int, Row]] = []
    for place, row in enumerate(rows):
        if row.source != "measured" or row.latency_s is None or is_wrong(row):
            kept.append((place, row))
            continue
        key = _day(row)
        _, before = best.get(key, (0, None))
        if before is None or (not row.valid, row.latency_s) < (not before.valid, before.latency_s):
            best[key] = place, row
    return [row for _, row in sorted([*kept, *best.values()], key=lambda placed: placed[0])]


def newest(rows: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
    """The newest row of each question; rows come oldest first."""
    return {question(row): row for row in rows}


def compare(old: Iterable[Row], new: Iterable[Row], rules: Rules) -> Comparison:
    """Join two stores' rows (each oldest first) by question, after :func:`settled`, and judge each pair.

    Raises:
        ShardbenchError: scipy is needed (both sides have samples) and not installed.
    """
    old, new = list(old), list(new)
    before, after = newest(settled(old)), newest(settled(new))
    pairs = [(before[key], after[key]) for key in before if key in after]
    if rules.by_process:
        processes = Processes(old), Processes(new)
        changes = judge_processes([(processes[0].of(then), processes[1].of(now)) for then, now in pairs], rules)
    else:
        changes = judge(pairs, rules)
    order = list(Verdict.__args__)  # type: ignore[attr-defined]
    changes.sort(key=lambda change: (order.index(change.verdict), -_size(change)))
    return Comparison(
        changes=changes,
        only_old=[row for key, row in before.items() if key not in after],
        only_new=[row for key, row in after.items() if key not in before],
    )


def judge(pairs: Sequence[tuple[Row, Row]], rules: Rules) -> list[Change]:
    """Judge (old, new) pairs, in order; significance is corrected for the number of tests."""
    tested: dict[int, float] = {}
    changes: list[Change] = []
    for index, (old, new) in enumerate(pairs):
        change = _without_times(old, new) or _not_comparable(old, new, rules)
        if change is None and old.samples_s and new.samples_s:
            tested[index] = mann_whitney(old.samples_s, new.samples_s)
            ratio = median_ratio(old.samples_s, new.samples_s, CI_LEVEL, RESAMPLES, seed=0)
            change = Change(old=old, new=new, verdict="same", reason="", ratio=ratio)
        changes.append(change or _exactly(old, new, rules))
    for index, p_value in zip(tested, holm(list(tested.values())), strict=True):
        changes[index] = _tested(replace(changes[index], p_value=p_value), rules)
    return changes


class Processes:
    """The valid measurements of each point on each day, one for each process."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._days: dict[tuple[Any, ...], list[Row]] = {}
        for row in rows:
            if row.source == "measured" and row.valid and row.latency_s is not None:
                self._days.setdefault(_day(row), []).append(row)

    def of(self, row: Row) -> list[Row]:
        """Measurements of a valid row's point on its day, the fastest first; of another row, itself."""
        found = self._days.get(_day(row), []) if row.valid else []
        return sorted(found, key=lambda each: each.latency_s or 0.0) or [row]


def judge_processes(pairs: Sequence[tuple[Sequence[Row], Sequence[Row]]], rules: Rules) -> list[Change]:
    """Judge (old, new) processes of points by :func:`between_processes`, in order; else as :func:`judge`.

    The latter holds for points without samples, and for all points where none has several processes in a set.
    """
    middle = [(old[(len(old) - 1) // 2], new[(len(new) - 1) // 2]) for old, new in pairs]
    changes = judge(middle, rules)
    places = [place for place, change in enumerate(changes) if change.p_value is not None]
    runs = [Runs(old=_medians(pairs[place][0]), new=_medians(pairs[place][1])) for place in places]
    if not any(each.freedom for each in runs):
        return changes
    found = between_processes(runs, CI_LEVEL)
    p_values = holm([p_value for _, p_value in found])
    for place, each, (ratio, _), p_value in zip(places, runs, found, p_values, strict=True):
        change = replace(changes[place], verdict="same", reason="", ratio=ratio, p_value=p_value, runs=each)
        changes[place] = _tested(change, rules)
    return changes


def label(row: Row) -> str:
    """The question in words, with layout and engine."""
    parts = (point_label(row), layout_label(row), row.engine, row.system or "")
    return ", ".join(part for part in parts if part)


def to_dict(change: Change) -> dict[str, Any]:
    """Plain values, ready for JSON. Times in seconds."""
    ratio = change.ratio
    return {
        **{name: getattr(change.new, name) for name in POINT_FIELDS},
        "source": change.new.source,
        "verdict": change.verdict,
        "reason": change.reason,
        "old_latency_s": change.old.latency_s,
        "new_latency_s": change.new.latency_s,
        "ratio": None if ratio is None else ratio.value,
        "ratio_ci_low": None if ratio is None else ratio.ci_low,
        "ratio_ci_high": None if ratio is None else ratio.ci_high,
        "p_value": change.p_value,
        "old_processes_s": None if change.runs is None else list(change.runs.old),
        "new_processes_s": None if change.runs is None else list(change.runs.new),
        "old_created_at": change.old.created_at,
        "new_created_at": change.new.created_at,
        "old_git_sha": change.old.git_sha,
        "new_git_sha": change.new.git_sha,
    }


def _without_times(old: Row, new: Row) -> Change | None:
    """The verdict where a row has no time, or a wrong output."""
    if old.status != new.status or old.latency_s is None or new.latency_s is None:
        if old.status == new.status:
            return Change(old=old, new=new, verdict="same", reason=f"{new.status} on both sides")
        verdict: Verdict = "broken" if old.status == "ok" else "mended" if new.status == "ok" else "changed"
        cause = f": {new.error}" if new.error else ""
        return Change(old=old, new=new, verdict=verdict, reason=f"{old.status} before, {new.status} now{cause}")
    if is_wrong(new) and not is_wrong(old):
        reason = f"output differs from the reference by {new.max_relative_error:.2g} relative"
        return Change(old=old, new=new, verdict="broken", reason=reason)
    return None


def _not_comparable(old: Row, new: Row, rules: Rules) -> Change | None:
    """The verdict where two measured times cannot be compared."""
    if old.source != "measured":
        return None
    reasons = [
        f"not valid {when}: {row.invalid_reason}" for row, when in ((old, "before"), (new, "now")) if not row.valid
    ]
    if not rules.allow_hosts:
        for name in ("host", "device_kind"):
            if getattr(old, name) != getattr(new, name):
                reasons.append(
                    f"{name} was {getattr(old, name)} and is {getattr(new, name)}; allow_hosts=true compares them"
                )
    if not reasons:
        return None
    return Change(old=old, new=new, verdict="not judged", reason="; ".join(reasons), ratio=_plain_ratio(old, new))


def _exactly(old: Row, new: Row, rules: Rules) -> Change:
    """The verdict on computed or published times: any difference counts."""
    ratio = _plain_ratio(old, new)
    verdict: Verdict = "changed"
    if abs(ratio.value - 1) <= EXACT:
        verdict = "same"
    elif ratio.value > 1 + rules.threshold:
        verdict = "slower"
    elif ratio.value < 1 / (1 + rules.threshold):
        verdict = "faster"
    reason = "" if verdict == "same" else timing_change(old, new) or ""
    return Change(old=old, new=new, verdict=verdict, reason=reason, ratio=ratio)


def _tested(change: Change, rules: Rules) -> Change:
    """The verdict on two sets of samples."""
    assert change.ratio is not None
    assert change.p_value is not None
    ratio = change.ratio.value
    beyond: Verdict = (
        "slower" if ratio > 1 + rules.threshold else "faster" if ratio < 1 / (1 + rules.threshold) else "same"
    )
    if beyond != "same" and change.p_value >= rules.alpha:
        return replace(change, reason=NOT_SIGNIFICANT)
    return replace(change, verdict=beyond)


def _day(row: Row) -> tuple[Any, ...]:
    """One point (same question, same program) on one day."""
    return (question(row), row.point_id, row.program_id, row.created_at[:10])


def _medians(rows: Sequence[Row]) -> list[float]:
    return [row.latency_s for row in rows if row.latency_s is not None]


def _plain_ratio(old: Row, new: Row) -> Ratio:
    assert old.latency_s is not None
    assert new.latency_s is not None
    value = new.latency_s / old.latency_s
    return Ratio(value=value, ci_low=value, ci_high=value)


def is_wrong(row: Row) -> bool:
    """Whether the output was outside the tolerance that the row states."""
    tolerance: Mapping[str, Any] = row.details
    bound = tolerance.get("tolerance")
    return bound is not None and row.max_relative_error is not None and not row.max_relative_error <= bound


def _size(change: Change) -> float:
    return 0.0 if change.ratio is None else abs(math.log(change.ratio.value))
