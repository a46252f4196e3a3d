"""The closed forms of Pope et al. 2022 as sections: Table 1, Figure 3, best X and N, crossovers; and their findings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.report.main.findings import Finding
from bench.report.main.tables import ERROR_COLUMN
from bench.report.paper.closed_forms import (
    CHIPS,
    D_FF,
    D_MODEL,
    MESH_SHAPE,
    PER_OCTAVE,
    TABLE_1_TOLERANCE,
    ContextLimit,
    Crossing,
    chip_crossing,
    layout_crossings,
    table_1,
    tokens_of_figure_3,
)
from bench.report.paper.figure_volume import Mark, volume_over_tokens
from bench.report.render.document import Section
from bench.rows.error_stats import relative_error
from bench.rows.table import Column, Table
from engines.analytic import paper_forms
from engines.core.text import significant

DOUBLINGS: Final = 8
"""Doublings of the chips in the table of best X."""
ABOUT: Final = (
    "Volumes are elements that a chip sends in one feed-forward of two matrices, E wide and F hidden, for T tokens on "
    "n = X·Y·Z chips, as in the paper's appendix A: (k − 1)/k is taken as 1. Nothing is timed or calibrated, and the "
    "paper prints no number of this figure."
)
COMMAND: Final = "No rows are needed: `shardbench report paper`."


@dataclass(frozen=True, slots=True)
class ClosedForms:
    """The sections, the findings, and the entries of Table 1, each of which says whether it agrees with the print."""

    sections: Sequence[Section]
    findings: Sequence[Finding]
    entries: Sequence[ContextLimit]


def closed_forms() -> ClosedForms:
    """Table 1 and Figure 3 first, then what follows from the same formulas."""
    entries = table_1()
    curves = paper_forms.figure_3(tokens_of_figure_3(), D_MODEL, D_FF, MESH_SHAPE)
    layouts = layout_crossings(curves)
    chips = chip_crossing()
    marks = [_mark(crossing) for crossing in layouts]
    caption = (
        f"Communication volume of one feed-forward over batch in tokens, predicted, as in Figure 3 of the paper: E = "
        f"{D_MODEL}, F = {D_FF}, X, Y, Z = {', '.join(map(str, MESH_SHAPE))}. Rings: crossovers by the closed forms."
    )
    sections = [
        Section(title="Table 1: the longest context", text=COMMAND, tables=[_entries_table(entries)]),
        Section(
            title="Figure 3: volume over batch",
            text=f"{ABOUT} {COMMAND}",
            tables=[_volume_table(curves)],
            draw=lambda: [volume_over_tokens(curves, marks, caption)],
        ),
        Section(title="Crossovers", tables=[_crossings_table([*layouts, chips])]),
        Section(title="Best X", tables=[_best_x_table()]),
        Section(title="Best N", tables=[_best_n_table()]),
    ]
    return ClosedForms(sections, _findings(entries, layouts, chips), entries)


def _mark(crossing: Crossing) -> Mark:
    volume = paper_forms.layout_elements(crossing.after, crossing.closed_form, D_MODEL, D_FF, MESH_SHAPE)
    return Mark(crossing.closed_form, float(volume), f"{crossing.closed_form:,.0f} tokens")


def _entries_table(entries: Sequence[ContextLimit]) -> Table:
    return Table(
        name="table1_context",
        caption="PaLM 540B on 64 TPU v4: the longest context, in tokens, as published and as predicted",
        columns=[
            Column("variant"),
            Column("batch_size", "batch"),
            Column("memory_fraction", "HBM for the cache (%)", 100.0, ".0f"),
            Column("published", "published (tokens)", spec=",.0f"),
            Column("predicted", "predicted (tokens)", spec=",.1f"),
            ERROR_COLUMN,
            Column("result"),
        ],
        rows=[
            {
                "variant": entry.variant,
                "batch_size": entry.batch_size,
                "memory_fraction": entry.memory_fraction,
                "published": entry.published,
                "predicted": entry.predicted,
                "relative_error": entry.relative_error,
                "result": "pass" if entry.passed else "FAIL",
                "reference": entry.reference,
            }
            for entry in entries
        ],
        note=(
            f"An entry passes within {TABLE_1_TOLERANCE:.0%} of the printed figure. The cache is in bfloat16. Heads "
            "are padded to a multiple of the chips; a multiquery model sharded over heads replicates its one head."
        ),
        csv_keys=(
            *("variant", "batch_size", "memory_fraction", "published", "predicted"),
            *("relative_error", "result", "reference"),
        ),
    )


def _volume_table(curves: paper_forms.VolumeCurves) -> Table:
    names = list(curves.elements)
    rows: list[dict[str, Any]] = []
    for place, tokens in enumerate(curves.tokens):
        volumes = {name: float(curves.elements[name][place]) for name in names}
        least = min(volumes.values())
        winners = " = ".join(name for name, volume in volumes.items() if volume == least)
        rows.append({"tokens": float(tokens), **volumes, "least": winners})
    return Table(
        name="figure3_volume",
        caption="Millions of elements that a chip sends in one feed-forward, predicted, by batch in tokens",
        columns=[
            Column("tokens", spec=",.0f"),
            *(Column(name, name, 1e-6, ",.1f") for name in names),
            Column("least", "least"),
        ],
        rows=rows,
        shown=rows[::PER_OCTAVE],
        note="Powers of two are printed; figure3_volume.csv has every point of the curves, in elements.",
    )


def _crossings_table(crossings: Sequence[Crossing]) -> Table:
    return Table(
        name="crossovers",
        caption="Where one layout begins to send less than another, predicted",
        columns=[
            Column("before", "from"),
            Column("after", "to"),
            Column("closed_form", "closed form", spec=",.0f"),
            Column("on_curves", "where the curves cross", spec=",.0f"),
            Column("unit"),
        ],
        rows=[
            {
                "before": each.before,
                "after": each.after,
                "closed_form": each.closed_form,
                "on_curves": each.on_curves,
                "unit": each.unit,
            }
            for each in crossings
        ],
        note=(
            f"E = {D_MODEL}, F = {D_FF}; crossovers in tokens are on {CHIPS} chips. Closed forms: E·F·N/n / (E/X + "
            "F/(YZ) − E/N) from ws_2d, F·N·N'/n from N gathered chips to N', 4·F/E chips from ws_1d to ws_2d."
        ),
    )


def _best_x_table() -> Table:
    first = round(D_FF / D_MODEL)
    one = float(paper_forms.ws_1d_elements(1, D_MODEL))
    rows: list[dict[str, Any]] = []
    for chips in (first * 2**doubling for doubling in range(DOUBLINGS + 1)):
        by_x = {
            x: float(paper_forms.ws_2d_elements(1, D_MODEL, D_FF, x, chips / x))
            for x in range(1, chips + 1)
            if chips % x == 0
        }
        whole = [x for x, volume in by_x.items() if volume == min(by_x.values())]
        least = float(paper_forms.least_ws_2d_elements(1, D_MODEL, D_FF, chips))
        rows.append(
            {
                "chips": chips,
                "best_x": paper_forms.best_x(chips, D_MODEL, D_FF),
                "whole_x": " or ".join(map(str, whole)),
                "ws_2d": least,
                "ws_2d_whole": by_x[whole[0]],
                "ws_1d": one,
                "ratio": least / one,
            }
        )
    return Table(
        name="best_x",
        caption=f"ws_2d over chips: the X with the least volume, predicted (E = {D_MODEL}, F = {D_FF})",
        columns=[
            Column("chips", spec=".0f"),
            Column("best_x", "best X", spec=".3g"),
            Column("whole_x", "best integer X"),
            Column("ws_2d", "ws_2d at best X (elements/token)", spec=",.0f"),
            Column("ws_2d_whole", "ws_2d at integer X (elements/token)", spec=",.0f"),
            Column("ws_1d", "ws_1d (elements/token)", spec=",.0f"),
            Column("ratio", "ws_2d / ws_1d", spec=".3f"),
        ],
        rows=rows,
        note="Best X = sqrt(n·E/F), at which ws_2d sends 4·sqrt(E·F/n) a token. An integer X divides the chips.",
    )


def _best_n_table() -> Table:
    tokens, end = D_FF / CHIPS, D_FF * CHIPS
    shards = paper_forms.gathered_chips(MESH_SHAPE)
    rows: list[dict[str, Any]] = []
    while tokens <= end:
        volumes = {
            layout: float(paper_forms.layout_elements(layout, tokens, D_MODEL, D_FF, MESH_SHAPE)) for layout in shards
        }
        least = float(paper_forms.least_wg_elements(tokens, D_MODEL, D_FF, CHIPS))
        best = [layout for layout, volume in volumes.items() if volume == min(volumes.values())]
        rows.append(
            {
                "tokens": tokens,
                "best_n": float(paper_forms.best_gathered(tokens, D_FF, CHIPS)),
                "elements": least,
                "layout": " = ".join(best),
                "gathered": shards[best[0]],
                "layout_elements": volumes[best[0]],
                "ratio": volumes[best[0]] / least,
            }
        )
        tokens *= 2
    return Table(
        name="best_n",
        caption=f"Weight-gathered over batch: the N with the least volume, predicted ({CHIPS} chips)",
        columns=[
            Column("tokens", spec=",.0f"),
            Column("best_n", "best N", spec=".3g"),
            Column("elements", "at best N (million elements)", 1e-6, ",.1f"),
            Column("layout", "best wg layout"),
            Column("layout_elements", "at its N (million elements)", 1e-6, ",.1f"),
            Column("ratio", "over the least", spec=".3f"),
        ],
        rows=rows,
        note=(
            "Best N = sqrt(T·n/F), at which a layout sends 4·E·sqrt(T·F/n). Rows run from N = 1 to N = n; the "
            f"layouts of X, Y, Z = {', '.join(map(str, MESH_SHAPE))} allow N = {', '.join(map(str, shards.values()))}."
        ),
    )


def _findings(entries: Sequence[ContextLimit], layouts: Sequence[Crossing], chips: Crossing) -> list[Finding]:
    worst = max(entries, key=lambda entry: abs(entry.relative_error))
    agree = sum(entry.passed for entry in entries)
    apart = max(abs(relative_error(each.on_curves, each.closed_form) or 0.0) for each in [*layouts, chips])
    x = paper_forms.best_x(CHIPS, D_MODEL, D_FF)
    return [
        Finding(
            "Table 1",
            ("published", "predicted"),
            f"{agree} of {len(entries)} entries agree within {TABLE_1_TOLERANCE:.0%}.",
            {"entries": len(entries), "agree": agree, "worst_relative_error": worst.relative_error},
        ),
        Finding(
            "Figure 3",
            ("predicted",),
            f"Weight-gathered layouts send less than {layouts[0].before} from {layouts[0].closed_form:,.0f} tokens on.",
            {f"{each.before} to {each.after}": each.closed_form for each in layouts} | {"curves_apart": apart},
        ),
        Finding(
            "best X", ("predicted",), f"On {CHIPS} chips ws_2d sends least at X = {significant(x)}.", {"best_x": x}
        ),
        Finding(
            "1D to 2D",
            ("predicted",),
            f"ws_2d sends less than ws_1d on more than {chips.closed_form:.0f} chips.",
            {"chips_1d_to_2d": chips.closed_form},
        ),
    ]
