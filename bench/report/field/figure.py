"""Latency against cost of every system of a setting: one panel a kind of system, all others in grey behind it."""

from collections.abc import Sequence
from typing import Any, Final

from bench.report.field.systems import FAMILIES, family_of, system_of
from bench.report.field.table import by_system, file_name
from bench.report.render.style import COLOURS, KINDS, Drawn, cost_axes, plain_log_ticks
from bench.rows.frontier import frontier, time_of
from bench.rows.labels import SOURCES
from engines.core.row import Row

MARKERS: Final = "osD^vP*Xph<>"
GREY: Final = "#d4d4d4"
DARKER: Final = "#8a8a8a"
BASE: Final = ("Pope et al. 2022", "best known stack")
"""The systems that others are compared with, darker behind each panel."""
ACROSS: Final = 3
CAPTION: Final = (
    "Each line is the frontier of one system over batches, by one kind of evidence: filled marks are observed, hollow "
    "ones computed. A panel shows one kind of system, with all others in grey."
)


def field_figure(setting: str, rows: Sequence[Row]) -> Drawn:
    """Chip-ms of a token over the time of a step, with dollars at the right where the command was given prices."""
    from matplotlib.figure import Figure

    families = [each for each in FAMILIES if any(family_of(row) == each for row in rows)]
    across = min(ACROSS, len(families) + 1)
    down = -(-(len(families) + 1) // across)
    figure = Figure(figsize=(5.0 * across, 5.0 * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for family, axis in zip(families, axes, strict=False):
        _panel(axis, family, rows)
    shown = axes[: len(families)]
    bounds = [(axis.get_xlim(), axis.get_ylim()) for axis in shown]
    for axis in shown:
        axis.set_xlim(min(x[0] for x, _ in bounds), max(x[1] for x, _ in bounds))
        axis.set_ylim(min(y[0] for _, y in bounds), max(y[1] for _, y in bounds))
        _dollars(axis, rows)
    for axis in axes[len(families) :]:
        axis.set_axis_off()
    _sources(axes[len(families)], rows)
    figure.suptitle(setting, fontweight="bold")
    return Drawn(file_name(setting), f"Cost of a token over latency, {setting}. {CAPTION}", figure)


def _panel(axis: Any, family: str, rows: Sequence[Row]) -> None:
    from matplotlib.lines import Line2D

    mine = [row for row in rows if family_of(row) == family]
    others = [row for row in rows if family_of(row) != family]
    for (system, source), own in by_system(others).items():
        look = {"color": DARKER, "linestyle": KINDS[source]["linestyle"]} if system in BASE else {"color": GREY}
        axis.plot(*_points(own), linewidth=0.8, marker=".", markersize=3, zorder=1.6 if system in BASE else 1.5, **look)
    systems = sorted({system_of(row) for row in mine})
    looks = {name: (COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]) for at, name in enumerate(systems)}
    for (system, source), own in by_system(mine).items():
        colour, marker = looks[system]
        kind = KINDS[source]
        axis.plot(
            *_points(own),
            color=colour,
            linestyle=kind["linestyle"],
            linewidth=1.2,
            marker=marker,
            markersize=5.0,
            markerfacecolor=colour if kind["filled"] else "white",
        )
    prefill = all(row.phase == "prefill" for row in rows)
    cost_axes(axis, "prefill (ms)" if prefill else "time of a token (ms)", family)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5.0, label=name)
        for name, (colour, marker) in looks.items()
    ]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.02, -0.19), fontsize=8, handletextpad=0.2)


def _points(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    best = frontier(rows)
    return [1e3 * (time_of(row) or 0) for row in best], [1e3 * (row.cost_chip_s_per_token or 0) for row in best]


def _dollars(axis: Any, rows: Sequence[Row]) -> None:
    """A second axis: of one chip, dollars are chip-seconds times its price."""
    priced = next((row for row in rows if row.cost_usd_per_mtok and row.cost_chip_s_per_token), None)
    if priced is None:
        return
    usd_per_chip_ms = (priced.cost_usd_per_mtok or 0.0) / (1e3 * (priced.cost_chip_s_per_token or 1.0))
    right = axis.secondary_yaxis("right", functions=(lambda y: y * usd_per_chip_ms, lambda y: y / usd_per_chip_ms))
    plain_log_ticks(right.yaxis)
    right.set_ylabel("cost (USD/Mtok)")


def _sources(axis: Any, rows: Sequence[Row]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for source in (each for each in SOURCES if any(row.source == each for row in rows)):
        face = "#555555" if KINDS[source]["filled"] else "white"
        style = {"color": "#555555", "linestyle": KINDS[source]["linestyle"], "marker": "o", "markerfacecolor": face}
        handles.append(Line2D([], [], label=source, **style))
    handles.append(Line2D([], [], label="systems of the other panels", color=GREY, marker=".", linewidth=0.8))
    for system in (each for each in BASE if any(system_of(row) == each for row in rows)):
        handles.append(Line2D([], [], label=f"{system}, for comparison", color=DARKER, marker=".", linewidth=0.8))
    axis.legend(handles=handles, loc="upper left", fontsize=9, title="kind of evidence")
