"""How every figure looks: the colours, the coding of the kinds of evidence, and how it is saved."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.rows.interval import Segment

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195", "#333333")
"""Okabe and Ito's palette, which colour-blind readers can tell apart, in the order of best contrast on white."""

MOST_IN_A_ROW: Final = 10
"""Panels of a figure side by side."""

KINDS: Final[dict[str, dict[str, Any]]] = {
    "measured": {"linestyle": "-", "marker": "D", "filled": True},
    "compiled": {"linestyle": ":", "marker": "^", "filled": False},
    "predicted": {"linestyle": "--", "marker": "o", "filled": False},
    "published": {"linestyle": "-", "marker": "o", "filled": True},
}
"""Kind of evidence → its line and marker: what somebody observed is filled and solid, what was computed is hollow."""

SETTINGS: Final[dict[str, Any]] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 3.0,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "shardbench",
    "figure.dpi": 100,
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure with its file name (without ending) and the sentence that stands under it."""

    name: str
    caption: str
    figure: "Figure"


@contextmanager
def settings() -> Iterator[None]:
    """matplotlib with these settings and no others, whatever the user's own file says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        parameters: Any = matplotlib.rcParams
        parameters.update(SETTINGS)
        yield


def panels(
    count: int, *, width: float = 4.4, height: float = 3.8, share_y: bool = False
) -> "tuple[Figure, list[Axes]]":
    """A figure with panels side by side, in rows of up to :data:`MOST_IN_A_ROW`; sizes in inches, a panel each."""
    from matplotlib.figure import Figure

    rows = math.ceil(count / MOST_IN_A_ROW)
    columns = math.ceil(count / rows)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=share_y).flat)
    for left in axes[count:]:
        left.remove()
    return figure, axes[:count]


def line_style(kind: str, colour: str) -> dict[str, Any]:
    """What ``plot`` and ``errorbar`` take for a kind of evidence."""
    style = KINDS[kind]
    return {
        "color": colour,
        "linestyle": style["linestyle"],
        "marker": style["marker"],
        "markerfacecolor": colour if style["filled"] else "white",
        "markeredgecolor": colour,
        "markeredgewidth": 1.2,
    }


def legend(
    figure: "Figure", colours: Sequence[tuple[str, str]], kinds: Sequence[str], marks: Sequence[tuple[str, str]] = ()
) -> None:
    """To the right: what each colour is, how each kind of evidence is drawn, and what further markers say."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=3, label=label) for label, colour in colours]
    if kinds:
        handles.append(Line2D([], [], linestyle="", label=" "))
        handles += [Line2D([], [], label=kind, **line_style(kind, "#555555")) for kind in kinds]
    handles += [
        Line2D([], [], label=label, marker=marker, linestyle="", color="#555555", markeredgewidth=2)
        for label, marker in marks
    ]
    figure.legend(handles=handles, loc="outside right upper")


def draw_segments(axis: "Axes", segments: "Sequence[Segment]", colour: str) -> None:
    """The 80% intervals of predictions (:func:`bench.rows.interval.ends`), as thin lines behind their marks."""
    from matplotlib.collections import LineCollection

    if segments:
        axis.add_collection(LineCollection(segments, colors=colour, linewidths=1.0, alpha=0.45, zorder=1.8))
        axis.autoscale_view()


def cost_axes(axis: Any, label: str, title: str) -> None:
    """Make a panel of points drawn already one of the cost of a token over a time, both logarithmic."""
    axis.set_xscale("log")
    axis.set_yscale("log")
    plain_log_ticks(axis.xaxis)
    plain_log_ticks(axis.yaxis)
    axis.set_xlabel(label)
    axis.set_ylabel("cost (chip-ms/token)")
    axis.set_title(title)


def plain_log_ticks(axis: Any, ticks: Sequence[float] | None = None) -> None:
    """Label a logarithmic axis with plain numbers (0.5, 1, 2, 5) where it spans little, with powers where much."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    if ticks is not None:
        axis.set_ticks(list(ticks))
        axis.set_minor_locator(NullLocator())
        return
    low, high = axis.get_view_interval()
    finest = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    coarser = (1.0, 2.0, 3.0, 5.0) if high / low < 10 else (1.0, 2.0, 5.0)
    subs = finest if high / low < 4 else coarser if high / low < 200 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))


def save(drawn: Drawn, folder: Path, endings: Sequence[str]) -> list[Path]:
    """Write the figure once for each ending; the same figure gives the same bytes."""
    take_dollars_as_they_are(drawn.figure)
    paths = []
    for ending in endings:
        path = folder / f"{drawn.name}.{ending}"
        # Neither a date nor a version: the same rows are to give the same file.
        metadata: dict[str, Any] = {
            "png": {"Software": None},
            "pdf": {"CreationDate": None, "Producer": None},
            "svg": {"Date": None, "Creator": None},
        }[ending]
        drawn.figure.savefig(path, dpi=160, metadata=metadata)
        drawn.figure.set_layout_engine("none")  # what was laid out for one format stays so for the others
        paths.append(path)
    return paths


def take_dollars_as_they_are(figure: "Figure") -> None:
    """A name with ``$`` is no formula; matplotlib's own formulas are the powers at a logarithmic axis."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if "$" in text.get_text() and r"\mathdefault" not in text.get_text():
            text.set_parse_math(False)
