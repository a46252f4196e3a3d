"""Findings: one sentence with one figure each, computed from the rows. Tables have the other figures."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.report.claims.contenders import HEADLINE_LENGTHS
from bench.report.main.best import (
    Contest,
    best_by_contender,
    fastest_decode_steps,
    layout_contests,
)
from bench.rows.counted import counted
from bench.rows.error_stats import ErrorStats
from bench.rows.frontier import time_of
from bench.rows.labels import (
    SOURCES,
    answered,
    by_source,
    evidence_label,
    layout_label,
    model_label,
    point_label,
    system_label,
)
from bench.rows.methods import method_label, plain_rows
from bench.rows.pairing import Pair, pair_errors, pair_oom_counts
from bench.rows.wrong_peaks import MFU
from engines.core.row import Row
from engines.core.text import significant


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, the kinds of evidence that it rests on, and its numbers in SI units and fractions."""

    topic: str
    sources: tuple[str, ...]
    sentence: str
    numbers: dict[str, Any] = field(default_factory=dict)


def findings(rows: Sequence[Row], pairs: Sequence[Pair]) -> list[Finding]:
    """All findings of these rows, the headline first."""
    return [
        *headline(rows),
        *prediction_error(pairs),
        *_best_mfu(rows),
        *_fastest_decode(rows),
        *_fastest_layout(rows),
        *_validity(rows),
        *_wrong_peaks(rows),
        *_coverage(rows),
    ]


def headline(rows: Sequence[Row]) -> list[Finding]:
    """The system with the highest MFU of the paper's comparison, for each kind of evidence that has two or more."""
    input_len, output_len = HEADLINE_LENGTHS
    found = []
    for source in reversed(SOURCES):
        best = best_by_contender(rows, source)
        if len(best) < 2:
            continue
        label = max(best, key=lambda each: best[each].mfu or 0)
        sentence = (
            f"{label} has the highest {source} MFU of {len(best)} systems at {input_len} tokens in and {output_len} "
            f"out: {best[label].mfu or 0:.1%}."
        )
        found.append(Finding("headline", (source,), sentence, {each: row.mfu for each, row in best.items()}))
    return found


def prediction_error(pairs: Sequence[Pair]) -> list[Finding]:
    """How far each engine is from what was published, its error on models that it was not fitted to, and its OOMs."""
    by_engine: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_engine[(pair.answer.source, pair.answer.engine)].append(pair)
    found = []
    for (source, engine), group in sorted(by_engine.items()):
        errors = pair_errors(group)
        if errors is None:
            continue
        sources = (source, "published")
        sentence = (
            f"Latencies of the {engine} engine differ from the published ones by {errors.mean:.1%} on average over "
            f"{counted(errors.n, 'row')}."
        )
        found.append(Finding("prediction error", sources, sentence, _error_numbers(errors, group)))
        found += _held_out(sources, engine, group)
        oom = pair_oom_counts(group)
        published = sum(pair.reference.status == "oom" for pair in group)
        if published:
            sentence = f"The {engine} engine finds {oom['oom_hit']} of {published} published out-of-memory points."
            found.append(Finding("out of memory", sources, sentence, oom))
    return found


def _error_numbers(whole: ErrorStats, group: Sequence[Pair]) -> dict[str, Any]:
    numbers: dict[str, Any] = {"mean": whole.mean, "p90": whole.p90, "worst": whole.worst, "n": whole.n}
    for system in sorted({pair.reference.system or "published" for pair in group}):
        errors = pair_errors(pair for pair in group if (pair.reference.system or "published") == system)
        if errors is not None:
            numbers[f"mean.{system}"] = errors.mean
    return numbers


def _held_out(sources: tuple[str, ...], engine: str, pairs: Sequence[Pair]) -> list[Finding]:
    """The largest mean error on a source whose rows were held out of the fit of the engine's constants."""
    errors: dict[str, float] = {}
    for pair in pairs:
        calibration = pair.answer.details.get("calibration")
        if isinstance(calibration, dict) and calibration.get("rows"):
            errors |= calibration.get("error_without_source", {})
    if not errors:
        return []
    worst = max(errors, key=lambda source: errors[source])
    sentence = (
        f"With constants fitted without a source's own rows, the {engine} engine is off by {errors[worst]:.1%} or less "
        f"on average, the most on {worst}."
    )
    return [Finding("held-out error", sources, sentence, errors)]


def _best_mfu(rows: Sequence[Row]) -> list[Finding]:
    """Of plain rows; of a store that has none, of what it has."""
    best: dict[tuple[str, str], Row] = {}
    for row in plain_rows(rows) or rows:
        kind = (row.source, row.engine)
        if answered(row) and row.mfu is not None and (kind not in best or row.mfu > (best[kind].mfu or 0)):
            best[kind] = row
    found = []
    for (source, engine), row in sorted(best.items(), key=lambda each: SOURCES.index(each[0][0])):
        layout = layout_label(row)
        where = f"{point_label(row)}{', ' + layout if layout else ''}"
        sentence = f"The highest {evidence_label(source, engine)} MFU is {row.mfu or 0:.1%}: {where}."
        found.append(Finding("highest MFU", (source,), sentence, {"mfu": row.mfu}))
    return found


def _fastest_decode(rows: Sequence[Row]) -> list[Finding]:
    """The fastest decode step for each kind of evidence, of plain rows where there are any; the table has it for every
    model, machine and method.
    """
    every = fastest_decode_steps(rows)
    steps = plain_rows(every) or every
    found = []
    for source in SOURCES:
        mine = by_source(steps, source)
        if mine:
            best = min(mine, key=lambda row: time_of(row) or 0)
            method = f", {method_label(best)}" if method_label(best) else ""
            where = f"{model_label(best.model)} on {best.num_chips} {best.hw}, batch {best.batch_size}{method}"
            sentence = (
                f"The fastest {source} decode step takes {significant(1e3 * (best.step_time_s or 0))} ms: {where}."
            )
            numbers = {".".join(filter(None, (row.model, row.hw, method_label(row)))): row.step_time_s for row in mine}
            found.append(Finding("fastest decode step", (source,), sentence, numbers))
    return found


def _fastest_layout(rows: Sequence[Row]) -> list[Finding]:
    """The layout that is the fastest of several for most questions; by engine, chip and phase."""
    groups: dict[tuple[str, str, str, str], list[Contest]] = defaultdict(list)
    for contest in layout_contests(rows):
        groups[contest.kind].append(contest)
    found = []
    for (source, engine, hw, phase), group in sorted(groups.items()):
        wins: dict[str, int] = defaultdict(int)
        for contest in group:
            wins[contest.first] += 1
        best = min(wins, key=lambda name: (-wins[name], name))
        where = f"{counted(len(group), f'{phase} point')} on {hw} ({', '.join(dict.fromkeys((source, engine)))})"
        if 2 * wins[best] > len(group):
            sentence = f"{best} is the fastest layout for {wins[best]} of {where}."
        else:
            sentence = f"No layout is the fastest for more than half of {where}."
        clear = sum(contest.is_clear for contest in group)
        numbers = {"questions": len(group), **wins, "median_lead": statistics.median(each.lead for each in group)}
        if source in ("measured", "predicted"):
            numbers["clear"] = clear
        if source == "predicted":
            sentence += f" Leads too small to be told apart: {len(group) - clear}."
        found.append(Finding("fastest layout", (source,), sentence, numbers))
    return found


def _validity(rows: Sequence[Row]) -> list[Finding]:
    measured = [row for row in by_source(rows, "measured") if row.status == "ok"]
    if not measured:
        return []
    valid = sum(row.valid for row in measured)
    sentence = f"{valid} of {len(measured)} measured rows are valid."
    return [Finding("validity", ("measured",), sentence, {"measured": len(measured), "valid": valid})]


def _wrong_peaks(rows: Sequence[Row]) -> list[Finding]:
    wrong = [row for row in rows if MFU.withheld in row.details]
    if not wrong:
        return []
    sources = tuple(source for source in SOURCES if by_source(wrong, source))
    sentence = (
        f"No MFU is shown in {counted(len(wrong), 'row')}: a program with the same measured peak exceeds that peak."
    )
    return [Finding("wrong peak", sources, sentence, {"rows": len(wrong)})]


def _coverage(rows: Sequence[Row]) -> list[Finding]:
    numbers = {source: len(mine) for source in SOURCES if (mine := by_source(rows, source))}
    systems = len({system_label(row) for row in rows})
    sentence = (
        f"The store holds {counted(len(rows), 'row')} of {counted(systems, 'combination')} of model, machine and "
        f"number of chips."
    )
    return [Finding("rows", tuple(numbers), sentence, numbers)]
