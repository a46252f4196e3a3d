"""What the paper's tables and figures show: one sentence with one figure each, computed from their rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench.report.claims.contenders import PALM, TP32
from bench.report.main.best import best_by_contender
from bench.report.main.findings import Finding
from bench.report.paper.answers import SOURCES, Answers, Asked
from bench.rows.error_stats import error_stats
from engines.core.row import Row
from engines.core.text import significant

Find = Callable[[Sequence[Answers]], list[Finding]]
COMPUTED: Final = ("compiled", "predicted", "measured")


def paper_findings(asked: Mapping[str, Asked]) -> list[Finding]:
    """In the order of the first page."""
    tables = {name: each.answers for name, each in asked.items() if name.startswith("table")}
    timed = [each for answers in tables.values() for each in answers]
    rows = [row for each in timed for row in each.rows.values()]
    return [
        *headline(rows),
        *errors("Tables 2 and 3", [*tables.get("table2", []), *tables.get("table3", [])]),
        *chips(asked["figure6"].answers),
        *prefill(asked["figure7"].answers),
        *context(asked["figure8"].answers),
        *errors("Tables D.2 to D.4", [each for name in tables if "_d" in name for each in tables[name]]),
        *cheapest(asked["figure1"].answers),
    ]


def headline(rows: Sequence[Row]) -> list[Finding]:
    """Figure 9: the highest MFU of 64 TPU v4 over that of FasterTransformer's 32-way tensor parallelism."""
    found = []
    for source in SOURCES:
        best = best_by_contender(rows, source)
        ours, theirs = best.get(PALM.label), best.get(TP32.label)
        if ours is not None and theirs is not None and theirs.mfu:
            ratio = (ours.mfu or 0.0) / theirs.mfu
            sentence = (
                f"The highest {source} MFU of {PALM.label}, is {significant(ratio)} times that of "
                f"FasterTransformer's 32-way tensor parallelism."
            )
            found.append(Finding("Figure 9", (source,), sentence, {"ratio": ratio}))
    return found[:1]


def errors(topic: str, answers: Sequence[Answers]) -> list[Finding]:
    """How far each kind of evidence is from the printed times on average, without rows that set its constants.

    The closed forms were fitted to all published rows, which the sentence says.
    """
    found = []
    for source in COMPUTED:
        found_errors = [
            error
            for each in answers
            if not _set_constants(each, source) and (error := each.error(source, "latency_s")) is not None
        ]
        stats = error_stats(found_errors)
        if stats is not None:
            also = ", which also set their constants," if source == "predicted" else ""
            sentence = (
                f"{source.capitalize()} times differ from the published ones{also} by {stats.mean:.1%} on average."
            )
            found.append(
                Finding(topic, (source, "published"), sentence, {"mean": stats.mean, "bias": stats.bias, "n": stats.n})
            )
    return found


def _set_constants(answers: Answers, source: str) -> bool:
    """Whether the published row is one that set the constants of the compiled one: such a row is no check of it."""
    row, published = answers.rows.get(source), answers.rows.get("published")
    if row is None or published is None:
        return False
    constants = row.details.get("constants")
    told = constants.get("set_by", []) if isinstance(constants, dict) else []
    marks = (f"{published.reference},", published.phase, f"batch {row.batch_size},", row.weight_dtype)
    return any(all(mark in each for mark in marks) for each in told)


def chips(answers: Sequence[Answers]) -> list[Finding]:
    """Figure 6: what 2D saves on the most chips on which both have a time."""
    for source in COMPUTED:
        steps: dict[int, dict[str, float]] = {}
        for each in answers:
            seconds = each.value(source, "time_s")
            if seconds is not None:
                steps.setdefault(each.point.num_chips, {})[each.point.ffn_layout] = seconds
        both = [count for count, times in steps.items() if {"ws_1d", "ws_2d"} <= times.keys()]
        if both:
            most = max(both)
            saved = 1 - steps[most]["ws_2d"] / steps[most]["ws_1d"]
            word = "less" if saved >= 0 else "more"
            sentence = (
                f"A {source} decode step on {most} chips takes {abs(saved):.0%} {word} time with ws_2d than ws_1d."
            )
            return [Finding("Figure 6", (source,), sentence, {"saved": saved, "num_chips": most})]
    return []


def prefill(answers: Sequence[Answers]) -> list[Finding]:
    """Figure 7: the highest MFU of a prefill, published where it is."""
    for source in SOURCES:
        known = [each for each in answers if each.value(source, "mfu") is not None]
        if known:
            best = max(known, key=lambda each: each.value(source, "mfu") or 0.0)
            mfu = best.value(source, "mfu") or 0.0
            layout = best.point.ffn_layout
            sentence = f"The highest {source} MFU of a prefill is {mfu:.1%}, with {layout}."
            numbers = {"mfu": mfu, "tokens": best.point.batch_size * best.point.input_len}
            return [Finding("Figure 7", (source,), sentence, numbers)]
    return []


def context(answers: Sequence[Answers]) -> list[Finding]:
    """Figure 8: how a step of multiquery attention over batch grows from the shortest to the longest context."""
    mine = [
        each for each in answers if "multihead" not in each.point.model.name and each.point.attn_sharding == "batch"
    ]
    for source in COMPUTED:
        steps = {each.point.input_len: each.value(source, "time_s") for each in mine}
        known = {length: seconds for length, seconds in steps.items() if seconds is not None}
        if len(known) > 1:
            ratio = known[max(known)] / known[min(known)]
            sentence = (
                f"The {source} step of the longest context takes {significant(ratio)} times that of the shortest, with "
                f"multiquery attention over batch."
            )
            return [Finding("Figure 8", (source,), sentence, {"ratio": ratio, "input_len": max(known)})]
    return []


def cheapest(answers: Sequence[Answers]) -> list[Finding]:
    """Figure 1: the least cost of a token of decode of the largest model."""
    mine = [each for each in answers if each.point.model.name == PALM.model and each.point.phase == "decode"]
    for source in SOURCES:
        costs = [cost for each in mine if (cost := each.value(source, "cost_chip_s_per_token")) is not None]
        if costs:
            sentence = (
                f"The least {source} cost of a decoded token of PaLM 540B is {significant(min(costs))} chip-seconds."
            )
            return [Finding("Figure 1", (source,), sentence, {"cost_chip_s_per_token": min(costs)})]
    return []
