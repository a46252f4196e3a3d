"""The best rows of a store: of each system in the paper's comparison, of each decode step, and of several layouts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.claims.contenders import CONTENDERS, HEADLINE_LENGTHS
from bench.rows.frontier import time_of
from bench.rows.labels import SOURCES, answered, by_source, layout_label
from bench.rows.methods import method_label
from bench.rows.table import Column, Table
from bench.validate.ratios import ratio_error
from engines.core.row import POINT_FIELDS, Row

LAYOUT_KEYS = ("ffn_layout", "attn_sharding", "collectives", "mesh_shape")
"""Keys in which the options of one contest may differ."""


@dataclass(frozen=True, slots=True)
class Contest:
    """One question that was answered for several layouts: the two fastest, by the labels of their layouts."""

    first: str
    second: str
    fastest: Row
    next_fastest: Row

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """Source, engine, chip and phase."""
        return (self.fastest.source, self.fastest.engine, self.fastest.hw, self.fastest.phase)

    @property
    def lead(self) -> float:
        """How much longer the second takes, as a fraction of the first."""
        return (self.next_fastest.latency_s or 0) / (self.fastest.latency_s or 1) - 1

    @property
    def is_clear(self) -> bool:
        """Whether the confidence intervals do not overlap; of predictions, whether the lead is more than the ratio of
        two of one stack may be off."""
        if self.fastest.source == "predicted":
            known = ratio_error("tpu" if self.fastest.tensor_parallel is None else "gpu", same_workload=True)
            return known is not None and known.told_apart(1 + self.lead)
        above, below = self.next_fastest.ci_low, self.fastest.ci_high
        return above is not None and below is not None and above > below


def best_by_contender(rows: Sequence[Row], source: str) -> dict[str, Row]:
    """For each system of the comparison its row with the highest MFU at the headline lengths."""
    best: dict[str, Row] = {}
    for contender in CONTENDERS:
        mine = [
            row
            for row in by_source(rows, source)
            if contender.is_of(row)
            and (row.input_len, row.output_len) == HEADLINE_LENGTHS
            and answered(row)
            and row.mfu is not None
        ]
        if mine:
            best[contender.label] = max(mine, key=lambda row: row.mfu or 0)
    return best


def headline_table(rows: Sequence[Row]) -> Table | None:
    """Highest MFU of each system by kind of evidence; None without rows."""
    by_kind = {source: found for source in reversed(SOURCES) if (found := best_by_contender(rows, source))}
    cells: list[dict[str, Any]] = []
    for contender in CONTENDERS:
        cell: dict[str, Any] = {"system": contender.label}
        for source, best in by_kind.items():
            row = best.get(contender.label)
            if row is not None:
                figures = {"mfu": row.mfu, "batch_size": row.batch_size, "latency_s": row.latency_s}
                cell |= {f"{source}_{key}": value for key, value in figures.items()}
        if len(cell) > 1:
            cells.append(cell)
    if not cells:
        return None
    columns = [Column("system")]
    for source in by_kind:
        columns += [
            Column(f"{source}_mfu", f"{source} MFU (%)", 100.0, ".1f"),
            Column(f"{source}_batch_size", "at batch", 1.0, ".0f"),
            Column(f"{source}_latency_s", "latency (s)", 1.0, ".3g"),
        ]
    input_len, output_len = HEADLINE_LENGTHS
    caption = f"Highest MFU of each system at {input_len} tokens in and {output_len} out"
    return Table(name="headline", caption=caption, columns=columns, rows=cells)


def fastest_decode_steps(rows: Sequence[Row]) -> list[Row]:
    """The row with the fastest decode step for every kind of evidence but published, chip, model and method."""
    best: dict[tuple[str, str, str, str], Row] = {}
    for row in rows:
        if row.phase == "decode" and answered(row) and row.step_time_s is not None and row.source != "published":
            key = (row.source, row.hw, row.model, method_label(row))
            if key not in best or (time_of(row) or 0) < (time_of(best[key]) or 0):
                best[key] = row
    return [best[key] for key in sorted(best)]


def decode_table(rows: Sequence[Row]) -> Table | None:
    """:func:`fastest_decode_steps` as a table; None without any."""
    best = fastest_decode_steps(rows)
    keys = ("model", "hw", "source", "step_time_s", "num_chips", "batch_size", "input_len", "weight_dtype")
    if not best:
        return None
    several = any(map(method_label, best))
    return Table(
        name="fastest_decode",
        caption="Fastest decode step of each model" + (", by each method" if several else ""),
        columns=[*(Column(key) for key in keys), *([Column("method")] if several else [])],
        rows=[
            {key: getattr(row, key) for key in keys} | ({"method": method_label(row)} if several else {})
            for row in best
        ],
    )


def layout_contests(rows: Sequence[Row]) -> list[Contest]:
    """Every question with answers for several layouts, of one kind of evidence and engine."""
    same = [key for key in POINT_FIELDS if key not in LAYOUT_KEYS]
    questions: dict[tuple[Any, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        name = layout_label(row)
        if answered(row) and name and row.source != "published":
            options = questions[(row.source, *(getattr(row, key) for key in same))]
            if name not in options or (row.latency_s or 0) < (options[name].latency_s or 0):
                options[name] = row
    contests = []
    for options in questions.values():
        if len(options) > 1:
            first, second = sorted(options, key=lambda name: (options[name].latency_s or 0, name))[:2]
            contests.append(Contest(first, second, options[first], options[second]))
    return contests


def layout_table(rows: Sequence[Row]) -> Table | None:
    """The fastest layout of each question with several; None without any."""
    contests = layout_contests(rows)
    if not contests:
        return None
    keys = ("model", "hw", "source", "engine", "phase", "num_chips", "batch_size", "input_len", "weight_dtype")
    return Table(
        name="fastest_layout",
        caption="Fastest layout where several were timed, and how far the second is behind",
        columns=[
            *(Column(key) for key in keys),
            Column("fastest"),
            *(Column("latency_s"), Column("second")),
            Column("lead", "second is slower by (%)", 100.0, ".1f"),
            Column("clear", "intervals apart"),
        ],
        rows=[
            {key: getattr(contest.fastest, key) for key in keys}
            | {
                "fastest": contest.first,
                "latency_s": contest.fastest.latency_s,
                "second": contest.second,
                "lead": contest.lead,
                "clear": "" if contest.fastest.ci_high is None else "yes" if contest.is_clear else "no",
            }
            for contest in contests
        ],
    )
