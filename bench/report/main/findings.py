"""What the rows say, in sentences: every number is computed from the rows, each sentence names its evidence."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.report.claims.contenders import CONTENDERS, HEADLINE_LENGTHS
from bench.rows.frontier import time_of
from bench.rows.labels import (
    SOURCES,
    answered,
    by_source,
    counted,
    layout_label,
    model_label,
    question_label,
    system_label,
)
from bench.rows.pairing import Pair, pair_errors, pair_oom_counts
from engines.core.row import POINT_FIELDS, Row


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, the kinds of evidence that it rests on, and its numbers in SI units and fractions."""

    topic: str
    sources: tuple[str, ...]
    sentence: str
    numbers: dict[str, Any] = field(default_factory=dict)


def findings(rows: Sequence[Row], pairs: Sequence[Pair]) -> list[Finding]:
    """Everything that can be said of these rows, the headline first."""
    return [
        *headline(rows),
        *prediction_error(pairs),
        *_least_latency(rows),
        *_best_mfu(rows),
        *_fastest_layout(rows),
        *_validity(rows),
        *_coverage(rows),
    ]


def headline(rows: Sequence[Row]) -> list[Finding]:
    """The best MFU of each system of the paper's comparison, among rows of one kind and with the same lengths."""
    input_len, output_len = HEADLINE_LENGTHS
    found = []
    for source in reversed(SOURCES):
        best: dict[str, Row] = {}
        for contender in CONTENDERS:
            mine = [
                row
                for row in by_source(rows, source)
                if contender.is_of(row) and (row.input_len, row.output_len) == HEADLINE_LENGTHS and answered(row)
            ]
            timed = [row for row in mine if row.mfu is not None]
            if timed:
                best[contender.label] = max(timed, key=lambda row: row.mfu or 0)
        if len(best) < 2:
            continue
        told = "; ".join(
            f"{label} {row.mfu or 0:.1%} (batch {row.batch_size}, {row.latency_s:.3g} s)" for label, row in best.items()
        )
        sentence = f"Highest {source} MFU at {input_len} tokens in and {output_len} out: {told}."
        found.append(Finding("headline", (source,), sentence, {label: row.mfu for label, row in best.items()}))
    return found


def prediction_error(pairs: Sequence[Pair]) -> list[Finding]:
    """How far every engine is from what was published, in all and by system."""
    by_engine: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_engine[(pair.answer.source, pair.answer.engine)].append(pair)
    found = []
    for (source, engine), group in sorted(by_engine.items()):
        whole = pair_errors(group)
        if whole is None:
            continue
        systems = sorted({pair.reference.system or "published" for pair in group})
        numbers: dict[str, Any] = {"mean": whole.mean, "p90": whole.p90, "worst": whole.worst, "n": whole.n}
        parts = []
        for system in systems:
            errors = pair_errors(pair for pair in group if (pair.reference.system or "published") == system)
            if errors is not None:
                parts.append(f"{errors.mean:.1%} over {errors.n} rows of {system}")
                numbers[f"mean.{system}"] = errors.mean
        sentence = (
            f"The {engine} engine ({source}) is {whole.mean:.1%} off the published latencies on average over "
            f"{whole.n} rows (median {whole.median:.1%}, 90th percentile {whole.p90:.1%}, worst {whole.worst:.1%}, "
            f"bias {whole.bias:+.1%}): {', '.join(parts)}."
        )
        oom = pair_oom_counts(group)
        if sum(oom.values()):
            published = oom["oom_hit"] + oom["oom_missed"]
            sentence += (
                f" Of {published} published out-of-memory points it says so of {oom['oom_hit']}, "
                f"with {oom['oom_false']} false alarms."
            )
        found.append(Finding("prediction error", (source, "published"), sentence + _in_sample(group), numbers | oom))
    return found


def _in_sample(pairs: Sequence[Pair]) -> str:
    """A warning where constants behind the answers were set by such rows: the error is then of a fit, not a check."""
    told = {}
    for pair in pairs:
        calibration = pair.answer.details.get("calibration")
        if isinstance(calibration, dict) and calibration.get("rows"):
            told[calibration["constants"]] = calibration
    parts = []
    for constants, calibration in sorted(told.items()):
        left_out = calibration.get("error_without_model", {})
        errors = " and ".join(f"{error:.1%} on {model}" for model, error in sorted(left_out.items()))
        parts.append(
            f"{sum(calibration['rows'].values())} such rows set the constants of {constants}"
            + (f"; fitted without a model's own rows it is {errors} off" if errors else "")
        )
    return f" This is a fit as much as a check: {'; '.join(parts)}." if parts else ""


def _least_latency(rows: Sequence[Row]) -> list[Finding]:
    """The fastest decode step of every model and machine, for each kind, with its lengths and chips."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.phase == "decode" and answered(row) and row.step_time_s is not None and row.source != "published":
            groups[(row.source, row.hw, row.model)].append(row)
    told: dict[tuple[str, str], list[str]] = defaultdict(list)
    numbers: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for (source, hw, model), group in sorted(groups.items(), key=lambda each: each[0]):
        best = min(group, key=lambda row: time_of(row) or 0)
        step_s = best.step_time_s or 0
        told[(source, hw)].append(
            f"{model_label(model)} {step_s * 1e3:.3g} ms (on {best.num_chips}, batch {best.batch_size}, "
            f"{best.input_len} cached, {best.weight_dtype})"
        )
        numbers[(source, hw)][model] = step_s
    return [
        Finding(
            "fastest decode step",
            (source,),
            f"Fastest {source} decode step on {hw}: {'; '.join(parts)}.",
            numbers[(source, hw)],
        )
        for (source, hw), parts in told.items()
    ]


def _best_mfu(rows: Sequence[Row]) -> list[Finding]:
    found = []
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        kind = (row.source, row.engine)
        if answered(row) and row.mfu is not None and row.mfu > (best[kind].mfu or 0 if kind in best else 0):
            best[kind] = row
    for (source, engine), row in sorted(best.items(), key=lambda each: SOURCES.index(each[0][0])):
        layout = layout_label(row)
        who = f"of {row.system} " if row.system else ""
        sentence = (
            f"Highest MFU in the rows of the {engine} engine ({source}): {row.mfu or 0:.1%} {who}"
            f"({question_label(row)}{', ' + layout if layout else ''})."
        )
        found.append(Finding("highest MFU", (source,), sentence, {"mfu": row.mfu}))
    return found


def _fastest_layout(rows: Sequence[Row]) -> list[Finding]:
    """Which layout wins where one question was answered for several; by engine and phase."""
    same = [key for key in POINT_FIELDS if key not in ("ffn_layout", "attn_sharding", "collectives", "mesh_shape")]
    questions: dict[tuple[Any, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if answered(row) and layout_label(row) and row.source != "published":
            options = questions[(row.source, *(getattr(row, key) for key in same))]
            name = layout_label(row)
            if name not in options or (row.latency_s or 0) < (options[name].latency_s or 0):
                options[name] = row
    contests: dict[tuple[str, str, str, str], list[dict[str, Row]]] = defaultdict(list)
    for options in questions.values():
        if len(options) > 1:
            row = next(iter(options.values()))
            contests[(row.source, row.engine, row.hw, row.phase)].append(options)
    found = []
    for (source, engine, hw, phase), group in sorted(contests.items()):
        wins: dict[str, int] = defaultdict(int)
        clear = 0
        gains = []
        for options in group:
            first, second = sorted(options, key=lambda name: options[name].latency_s or 0)[:2]
            wins[first] += 1
            gains.append((options[second].latency_s or 0) / (options[first].latency_s or 1) - 1)
            above, below = options[second].ci_low, options[first].ci_high
            clear += above is not None and below is not None and above > below
        ranked = sorted(wins.items(), key=lambda each: (-each[1], each[0]))
        told = "; ".join(f"{name}, in {count}" for name, count in ranked)
        sentence = (
            f"Fastest layout for {phase} on {hw} ({source}, {engine}), of {len(group)} questions asked of "
            f"several layouts: {told}. The winner leads the next by {statistics.median(gains):.1%} in the median"
        )
        sentence += f", clear of its interval in {clear}." if source == "measured" else "."
        found.append(Finding("fastest layout", (source,), sentence, {"questions": len(group), **wins}))
    return found


def _validity(rows: Sequence[Row]) -> list[Finding]:
    measured = [row for row in by_source(rows, "measured") if row.status == "ok"]
    if not measured:
        return []
    valid = [row for row in measured if row.valid]
    reasons = [
        _kind_of_reason(part) for row in measured if not row.valid for part in (row.invalid_reason or "").split("; ")
    ]
    sentence = f"Of {len(measured)} measured rows with a time, {len(valid)} are valid"
    sentence += f"; the others are not: {counted(reasons)}." if reasons else "."
    return [Finding("validity", ("measured",), sentence, {"measured": len(measured), "valid": len(valid)})]


def _kind_of_reason(reason: str) -> str:
    for start, kind in (("output differs", "output differs from the reference"), ("still warming", "not warm")):
        if reason.startswith(start):
            return kind
    return "interval too wide" if "interval is" in reason else "too few samples" if "samples" in reason else reason


def _coverage(rows: Sequence[Row]) -> list[Finding]:
    parts = []
    numbers: dict[str, Any] = {}
    for source in SOURCES:
        mine = by_source(rows, source)
        if mine:
            parts.append(f"{len(mine)} {source} ({counted(row.status for row in mine)})")
            numbers[source] = len(mine)
    systems = len({system_label(row) for row in rows})
    sentence = f"{len(rows)} rows: {'; '.join(parts)}; {systems} combinations of model, machine and chips."
    return [Finding("rows", tuple(numbers), sentence, numbers)]
