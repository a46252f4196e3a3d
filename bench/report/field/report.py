"""One figure and one table a setting: latency against cost per token of every system, sources told apart."""

from collections.abc import Sequence
from typing import Any, Final

from bench.report.field.systems import of_field, system_of
from bench.report.main.evidence import evidence_table
from bench.report.main.findings import Finding
from bench.report.render.document import Document, Front, Section
from bench.report.render.style import COLOURS, KINDS, Drawn, cost_axes
from bench.rows.frontier import frontier, time_of
from bench.rows.labels import answered, layout_label, model_label, parallelism
from bench.rows.table import Column, Table
from engines.core.errors import ShardbenchError
from engines.core.row import Row
from engines.core.text import significant

MARKERS: Final = "osD^vP*Xph<>"
STEP_LIMIT_S: Final = 0.05
"""Twenty tokens a second: somewhat faster than one reads."""
HOW_TO_READ: Final = (
    "Each line is the frontier of one system over batches, by one kind of evidence: filled marks are observed "
    "(measured, published), hollow ones computed (compiled, predicted). Systems of one setting answer the same "
    "question; those that change the model (pruned, sparse, distilled, another attention) do not give the same text, "
    "and what that costs is in the row where it was measured. A speculative row holds at the acceptance rate that it "
    "names."
)


def field_report(rows: Sequence[Row], title: str) -> Document:
    """Every setting of the sweeps ``field`` and ``field-measured``.

    Raises:
        ShardbenchError: there is no row of either.
    """
    mine = [row for row in of_field(list(rows)) if answered(row) and row.cost_chip_s_per_token is not None]
    if not mine:
        raise ShardbenchError("field: the store holds none of its rows; run shardbench run +sweep=field first")
    settings = sorted(dict.fromkeys(setting_of(row) for row in mine), key=lambda each: ("tpu" not in each, each))
    sections = [Section(title="Evidence", text=HOW_TO_READ, tables=[evidence_table(mine)])]
    found: list[Finding] = []
    for setting in settings:
        own = [row for row in mine if setting_of(row) == setting]
        found += _finding(setting, own)
        sections.append(Section(title=setting, tables=[frontier_table(setting, own)], draw=_drawn(setting, own)))
    unanswered = [row for row in of_field(list(rows)) if row.status != "ok"]
    if unanswered:
        sections.append(Section(title="What has no time", tables=[_without_time(unanswered)]))
    first = [row for row in mine if setting_of(row) == settings[0]]
    front = Front(findings=found, draw=_drawn(settings[0], first), table=frontier_table(settings[0], first))
    return Document(name="field", title=title, findings=found, sections=sections, front=front)


def setting_of(row: Row) -> str:
    """What the systems of one figure have in common: chips and phase; models differ where a method changes them."""
    return f"{row.num_chips} {row.hw}, {row.phase} of {row.output_len or row.input_len} tokens"


def frontier_table(setting: str, rows: Sequence[Row]) -> Table:
    """Of each system and kind of evidence: the least latency, and the least cost within 50 ms a token or at all."""
    lines: list[dict[str, Any]] = []
    for (system, source), own in _grouped(rows).items():
        fastest = min(own, key=lambda row: time_of(row) or 0)
        within = [row for row in own if (time_of(row) or 0) <= STEP_LIMIT_S] or own
        cheapest = min(within, key=lambda row: row.cost_chip_s_per_token or 0)
        for what, row in {"fastest": fastest, "cheapest": cheapest}.items():
            lines.append(
                {
                    "system": system,
                    "source": source,
                    "what": what,
                    "model": model_label(row.model),
                    "batch_size": row.batch_size,
                    "split": split_of(row),
                    "time": time_of(row),
                    "cost": row.cost_chip_s_per_token,
                    "mfu": row.mfu,
                    "valid": row.valid,
                }
            )
    columns = [
        *(Column("system"), Column("source"), Column("what", "point"), Column("model"), Column("batch_size", "batch")),
        Column("split", "layout"),
        Column("time", "step or prefill (ms)", 1e3, ".4g"),
        Column("cost", "cost (chip-ms/token)", 1e3, ".4g"),
        *(Column("mfu", "MFU (%)", 100.0, ".1f"), Column("valid")),
    ]
    name = "field_" + "".join(each if each.isalnum() else "_" for each in setting)
    note = "cheapest: the least cost among points within 50 ms a step, or of all where none is."
    return Table(name=name, caption=setting, columns=columns, rows=lines, note=note)


def split_of(row: Row) -> str:
    """The layout that a row ran, as the planner or the user chose it."""
    if row.tensor_parallel is not None:
        return parallelism(row.tensor_parallel, row.pipeline_parallel)
    return layout_label(row)


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    keys = dict.fromkeys((system_of(row), row.source) for row in rows)
    return {key: [row for row in rows if (system_of(row), row.source) == key] for key in sorted(keys)}


def _drawn(setting: str, rows: Sequence[Row]) -> Any:
    return lambda: [_figure(setting, rows)]


def _figure(setting: str, rows: Sequence[Row]) -> Drawn:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(10.0, 5.6), layout="constrained")
    axis = figure.subplots()
    systems = sorted({system_of(row) for row in rows})
    looks = {name: (COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]) for at, name in enumerate(systems)}
    for (system, source), own in _grouped(rows).items():
        colour, marker = looks[system]
        best = frontier(own)
        kind = KINDS[source]
        axis.plot(
            [1e3 * (time_of(row) or 0) for row in best],
            [1e3 * (row.cost_chip_s_per_token or 0) for row in best],
            color=colour,
            linestyle=kind["linestyle"],
            linewidth=1.0,
            marker=marker,
            markersize=4.5,
            markerfacecolor=colour if kind["filled"] else "white",
        )
    prefill = all(row.phase == "prefill" for row in rows)
    cost_axes(axis, "prefill (ms)" if prefill else "time of a token (ms)", setting)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markerfacecolor="white", label=name)
        for name, (colour, marker) in looks.items()
    ]
    for source in sorted({row.source for row in rows}):
        face = "#555555" if KINDS[source]["filled"] else "white"
        style = {"color": "#555555", "linestyle": KINDS[source]["linestyle"], "marker": "o", "markerfacecolor": face}
        handles.append(Line2D([], [], label=source, **style))
    figure.legend(handles=handles, loc="outside right upper", fontsize=7)
    name = "field_" + "".join(each if each.isalnum() else "_" for each in setting)
    return Drawn(name, f"Cost of a token over latency, {setting}: {HOW_TO_READ}", figure)


def _finding(setting: str, rows: Sequence[Row]) -> list[Finding]:
    """Which system is fastest, and which cheapest within 50 ms, of those that leave the model as it is."""
    whole = [row for row in rows if row.source in ("predicted", "measured") and not _changes_the_model(row)]
    within = [row for row in whole if (time_of(row) or 0) <= STEP_LIMIT_S]
    if not within:
        return []
    fastest = min(within, key=lambda row: time_of(row) or 0)
    cheapest = min(within, key=lambda row: row.cost_chip_s_per_token or 0)
    sentence = (
        f"{setting}: of the systems that leave the model as it is, {system_of(fastest)} is fastest, "
        f"{significant(1e3 * (time_of(fastest) or 0), 3)} ms at batch {fastest.batch_size}, and {system_of(cheapest)} "
        f"cheapest within 50 ms, {significant(1e3 * (cheapest.cost_chip_s_per_token or 0), 3)} chip-ms a token at "
        f"batch {cheapest.batch_size}."
    )
    return [
        Finding(
            topic="The field", sentence=sentence, sources=tuple(sorted({row.source for row in (fastest, cheapest)}))
        )
    ]


def _changes_the_model(row: Row) -> bool:
    """Whether its text is another's; prompts of other lengths are another question as well."""
    others = ("Pruned", "Sparse", "Multihead", "Early exit", "Distilled", "EffectiveTransformer")
    return system_of(row).startswith(others)


def _without_time(rows: Sequence[Row]) -> Table:
    columns = [Column("system"), *(Column(key) for key in ("engine", "hw", "batch_size", "status", "error"))]
    lines = [
        {
            "system": system_of(row),
            **{key: getattr(row, key) for key in ("engine", "hw", "batch_size", "status", "error")},
        }
        for row in rows
    ]
    return Table(name="field_unanswered", caption="Points without a time", columns=columns, rows=lines)
