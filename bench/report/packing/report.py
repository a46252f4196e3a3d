"""What padding costs: the time of padded prompts over that of packed ones, beside its closed bounds."""

import statistics
from collections.abc import Sequence
from typing import Any, Final

from bench.report.main.findings import Finding
from bench.report.packing.figure import packing_figure
from bench.report.packing.pairs import SWEEP, PackingPair, of_packing, pairs_of, question
from bench.report.render.document import Document, Front, Section
from bench.rows.counted import counted
from bench.rows.labels import SOURCES, evidence_label
from bench.rows.table import Column, Table
from engines.core.errors import ShardbenchError
from engines.core.row import Row

COMMAND: Final = f"shardbench run +sweep={SWEEP}"
TEXT: Final = (
    "Of a batch of prompts up to L tokens long, padding computes L tokens of each, packing the real ones. What is a "
    "number of tokens (matmuls, norms) can shrink by L/E[length], attention's scores by L²/E[length²]; what is paid "
    "for weights or for starting a program does not shrink. A decode step has one token of each sequence either way, "
    "and only reads less of the cache."
)


def packing_report(rows: Sequence[Row], title: str) -> Document:
    """Padded over packed times of the sweep, by law, phase, batch and kind of evidence.

    Raises:
        ShardbenchError: the store holds no two rows that differ in padding alone.
    """
    pairs = pairs_of(rows)
    if not pairs:
        raise ShardbenchError(f"packing: the store holds no pair of padded and packed rows; run {COMMAND} first")
    timed = [pair for pair in pairs if pair.ratio is not None]
    found = [finding for phase in ("prefill", "decode") for finding in _findings(timed, phase)]
    table = ratio_table(timed)
    sections = [
        Section(title="Padded over packed", text=TEXT, tables=[table], draw=lambda: packing_figure(timed)),
        Section(title="All pairs", linked=[pair_table(pairs)], tables=_without_time(rows)),
    ]
    front = Front(findings=found, draw=lambda: packing_figure(timed), table=table, text=TEXT)
    return Document(name="packing", title=title, findings=found, sections=sections, front=front)


def ratio_table(pairs: Sequence[PackingPair]) -> Table:
    """One line a question, engine and law, with the ratio of every batch; of a pair that is not valid, that."""
    lines: dict[tuple[str, str, str], dict[str, Any]] = {}
    for pair in pairs:
        row = pair.packed
        key = (question(pair), row.engine, str(row.lengths))
        line = lines.setdefault(
            key,
            {
                "question": question(pair),
                "source": evidence_label(row.source, row.engine),
                "law": row.lengths,
                "tokens": row.input_len / pair.law.mean,
                "scores": pair.score_bound,
                "ratios": "",
            },
        )
        told = f"{row.batch_size}: {pair.ratio:.2f}" + ("" if pair.valid else " (not valid)")
        line["ratios"] = ", ".join(filter(None, (line["ratios"], told)))
    columns = [
        *(Column("question"), Column("source"), Column("law", "lengths")),
        Column("tokens", "L/E[length]", 1.0, ".2f"),
        Column("scores", "L²/E[length²]", 1.0, ".2f"),
        Column("ratios", "batch: padded/packed time"),
    ]
    return Table(name="packing", caption="Padded over packed times", columns=columns, rows=[*lines.values()])


def pair_table(pairs: Sequence[PackingPair]) -> Table:
    """Every pair with both times, and the bound of the tokens of its own batch."""
    columns = [
        *(Column("question"), Column("source"), Column("engine"), Column("law", "lengths"), Column("batch", "batch")),
        Column("padded", "padded (s)", 1.0, ".4g"),
        Column("packed", "packed (s)", 1.0, ".4g"),
        Column("ratio", "padded/packed", 1.0, ".3f"),
        Column("bound", "padded/real tokens", 1.0, ".3f"),
        Column("valid"),
    ]
    lines = [
        {
            "question": question(pair),
            **{key: getattr(pair.packed, key) for key in ("source", "engine")},
            "law": pair.packed.lengths,
            "batch": pair.packed.batch_size,
            "padded": pair.padded.latency_s,
            "packed": pair.packed.latency_s,
            "ratio": pair.ratio,
            "bound": pair.token_bound,
            "valid": pair.valid,
        }
        for pair in pairs
    ]
    return Table(name="packing_pairs", caption="Every pair", columns=columns, rows=lines)


def _findings(pairs: Sequence[PackingPair], phase: str) -> list[Finding]:
    """Of each kind of evidence: the ratios of a phase, and what share of the tokens' bound they reach."""
    found = []
    for source in SOURCES:
        mine = [pair for pair in pairs if pair.valid and pair.packed.source == source and pair.packed.phase == phase]
        if not mine:
            continue
        ratios = [pair.ratio or 0.0 for pair in mine]
        shares = [(pair.ratio or 0.0) / pair.token_bound for pair in mine]
        sentence = (
            f"{phase}: padded prompts take {statistics.median(ratios):.2f} times as long as packed ones, the median of "
            f"{counted(len(mine), 'pair')} from {min(ratios):.2f} to {max(ratios):.2f}"
        )
        if phase == "prefill":
            sentence += f"; that is {statistics.median(shares):.0%} of padded over real tokens"
        numbers = {"median": statistics.median(ratios), "median_of_bound": statistics.median(shares)}
        found.append(Finding("Packing", (source,), sentence + ".", numbers))
    return found


def _without_time(rows: Sequence[Row]) -> list[Table]:
    keys = ("engine", "model", "hw", "phase", "batch_size", "lengths", "padding", "status", "error")
    left = [row for row in of_packing(rows) if row.status != "ok"]
    if not left:
        return []
    lines = [{key: getattr(row, key) for key in keys} for row in left]
    columns = [Column(key) for key in keys]
    return [Table(name="packing_unanswered", caption="Points without a time", columns=columns, rows=lines)]
