"""One turn of a compiled loop over layers: computation, copies, and both directions of every link."""

from collections.abc import Sequence
from typing import Any, Final

from bench.report.render.style import COLOURS, Drawn
from bench.report.studies.read_trace import PERMUTE, Bar, LoopIteration
from engines.compiled.perfetto import BarKind, Lane

NAMES: Final = {
    BarKind.MATMUL: "matmuls",
    BarKind.OTHER: "other computation",
    BarKind.FURTHER_TURNS: "further turns of inner loops",
    BarKind.EXPOSED: "exposed communication",
    BarKind.COPY_WAIT: "copies, and waiting for them",
    BarKind.COPY: "copies, and waiting for them",
}
OTHER_COLLECTIVES: Final = "other collectives"
COLOUR_OF: Final = {
    NAMES[BarKind.MATMUL]: COLOURS[0],
    NAMES[BarKind.OTHER]: COLOURS[4],
    NAMES[BarKind.FURTHER_TURNS]: "#cccccc",
    NAMES[BarKind.EXPOSED]: COLOURS[1],
    NAMES[BarKind.COPY]: COLOURS[5],
    "all-gather": COLOURS[6],
    "reduce-scatter": COLOURS[3],
    "all-reduce": "#9A6324",
    "all-to-all": COLOURS[7],
    PERMUTE: COLOURS[2],
    OTHER_COLLECTIVES: "#999999",
}
"""What a bar may be → its colour, in the order of the legend."""
LANE_HEIGHT: Final = 0.8
LABELLED: Final = 0.09
"""Share of the turn from which a bar has room for a number."""
LEGEND_COLUMNS: Final = 5


def turn(name: str, caption: str, shown: LoopIteration) -> Drawn:
    """Lanes from above: computation, copies, links; bars coloured by kind."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lanes = shown.lanes
    figure = Figure(figsize=(10.5, 1.5 + 0.36 * len(lanes)), layout="constrained")
    axis = figure.subplots()
    scale, unit = (1e6, "µs") if shown.seconds < 2e-3 else (1e3, "ms")
    for place, lane in enumerate(lanes):
        bars = [bar for bar in shown.bars if bar.label == lane]
        for kind, colour in COLOUR_OF.items():
            spans = [(scale * bar.start_s, scale * bar.seconds) for bar in bars if kind_of(bar) == kind]
            if spans:
                height = LANE_HEIGHT
                axis.broken_barh(
                    spans, (place - height / 2, height), facecolor=colour, edgecolor="white", linewidth=0.3
                )
        _label(axis, bars, place, scale, shown.seconds)
    axis.set_yticks(range(len(lanes)), lanes)
    axis.set_ylim(len(lanes) - 0.4, -0.6)
    axis.set_xlim(0, scale * shown.seconds)
    axis.set_xlabel(f"time in the turn ({unit})")
    axis.grid(visible=False, axis="y")
    present = {kind_of(bar) for bar in shown.bars}
    handles = [Patch(color=colour, label=kind) for kind, colour in COLOUR_OF.items() if kind in present]
    columns = min(LEGEND_COLUMNS, len(handles))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, handlelength=1.2, columnspacing=1.4)
    return Drawn(name, caption, figure)


def kind_of(bar: Bar) -> str:
    """What the legend calls the bar."""
    if bar.kind == BarKind.COLLECTIVE:
        return bar.opcode if bar.opcode in COLOUR_OF else OTHER_COLLECTIVES
    return NAMES[bar.kind]


def _label(axis: Any, bars: Sequence[Bar], place: int, scale: float, whole_s: float) -> None:
    """The HBM traffic of long computation."""
    for bar in bars:
        if bar.lane == Lane.COMPUTE and bar.bytes and bar.seconds > LABELLED * whole_s:
            rate = f"{1e-9 * bar.bytes / bar.seconds:,.0f} GB/s"
            centre = scale * (bar.start_s + bar.seconds / 2)
            axis.text(centre, place, rate, ha="center", va="center", fontsize=8, color="white")
