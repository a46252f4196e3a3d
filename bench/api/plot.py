"""A figure of a frame, by matplotlib or plotly."""

import colorsys
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, overload

from bench.api.marks import Drawing, drawing
from bench.report.render.style import COLOURS, KINDS
from engines.core.errors import InvalidRequest, ShardbenchError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Backend = Literal["matplotlib", "plotly"]
SYMBOLS: Final = {"D": "diamond", "^": "triangle-up", "o": "circle"}
"""matplotlib's marker → plotly's."""
DASHES: Final = {"-": "solid", "--": "dash", ":": "dot"}


@overload
def plot(
    frame: "pd.DataFrame",
    x: str,
    y: str,
    *,
    color: str = ...,
    backend: Literal["matplotlib"] = ...,
    lines: bool = ...,
    log_x: bool = ...,
    log_y: bool = ...,
    intervals: bool = ...,
) -> "Figure": ...


@overload
def plot(
    frame: "pd.DataFrame",
    x: str,
    y: str,
    *,
    color: str = ...,
    backend: Literal["plotly"],
    lines: bool = ...,
    log_x: bool = ...,
    log_y: bool = ...,
    intervals: bool = ...,
) -> Any: ...


def plot(
    frame: "pd.DataFrame",
    x: str,
    y: str,
    *,
    color: str = "model",
    backend: Backend = "matplotlib",
    lines: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    intervals: bool = True,
) -> Any:
    """Column ``y`` over column ``x`` of a frame of rows, a mark a row, coloured by column ``color``.

    The four sources have marks of their own: what was observed is filled, what was computed hollow. Axes have the unit
    and the scale that tables print (``MFU (%)``). Rows without ``x`` or ``y``, and rows that are not valid, are
    not drawn, and the figure says how many.

    Args:
        frame: of :func:`bench.load` or :func:`bench.ask_all`, or some of its rows; it needs the column ``source``.
        x: any column.
        y: a column of numbers.
        color: any column.
        backend: ``matplotlib``, or ``plotly``, which shows the row under the pointer.
        lines: join the marks of a colour and source.
        log_x: a logarithmic axis; values ≤ 0 have no place on it.
        log_y: likewise.
        intervals: draw the 80% interval of a prediction, and the confidence interval of a measurement's median, where
            ``x`` or ``y`` follows from the time (:func:`bench.rows.interval.power_of`).

    Returns:
        :class:`matplotlib.figure.Figure` or ``plotly.graph_objects.Figure``.

    Raises:
        InvalidRequest: the frame lacks a column, ``y`` has no numbers, ``x`` has none and a logarithmic axis, or the
            backend is not known.
        ShardbenchError: the backend is not installed.
    """
    if backend not in get_args(Backend):
        raise InvalidRequest("backend", backend, "is not known", f"use {' or '.join(get_args(Backend))}")
    found = drawing(frame, x, y, color, intervals=intervals)
    if log_x and not all(isinstance(each, float) for marks in found.marks for each in marks.x):
        raise InvalidRequest("log_x", True, f"needs numbers, and {x} has none", "leave it out")
    if backend == "plotly":
        return _by_plotly(found, color, lines, log_x, log_y)
    return _by_matplotlib(found, color, lines, log_x, log_y)


def colours_of(labels: list[str]) -> dict[str, str]:
    """Label → colour: the palette of the reports, and hues around the circle where it has too few."""
    if len(labels) <= len(COLOURS):
        return dict(zip(labels, COLOURS, strict=False))
    found = {}
    for place, label in enumerate(labels):
        red, green, blue = colorsys.hls_to_rgb(place / len(labels), (0.35, 0.5)[place % 2], 0.75)
        found[label] = f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
    return found


def _by_matplotlib(found: Drawing, color: str, lines: bool, log_x: bool, log_y: bool) -> "Figure":
    try:
        from bench.report.render.style import (
            draw_segments,
            legend,
            line_style,
            panels,
            plain_log_ticks,
            settings,
            take_dollars_as_they_are,
        )

        with settings():
            figure, (axis,) = panels(1, width=7.0, height=4.6)
            colours = colours_of(found.labels)
            for marks in found.marks:
                style = line_style(marks.source, colours[marks.label]) | ({} if lines else {"linestyle": ""})
                axis.plot(marks.x, marks.y, **style)
                draw_segments(axis, marks.segments, colours[marks.label])
            for is_log, scaled, ticks in ((log_x, axis.set_xscale, axis.xaxis), (log_y, axis.set_yscale, axis.yaxis)):
                if is_log and found.marks:
                    scaled("log")
                    plain_log_ticks(ticks)
            axis.set_xlabel(found.x_title)
            axis.set_ylabel(found.y_title)
            if found.note or not found.marks:
                axis.set_title(found.note or "no rows", fontsize=9, fontweight="normal", color="#555555")
            named = [(label, colours[label]) for label in found.labels]
            kinds = dict.fromkeys(marks.source for marks in found.marks)
            legend(figure, [(f"{color}:", "none"), *named] if named else [], [kind for kind in KINDS if kind in kinds])
            take_dollars_as_they_are(figure)
            return figure
    except ImportError:
        raise _not_installed("matplotlib", "report") from None


def _by_plotly(found: Drawing, color: str, lines: bool, log_x: bool, log_y: bool) -> Any:
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise _not_installed("plotly", "dashboard") from None
    figure = go.Figure()
    colours = colours_of(found.labels)
    for marks in found.marks:
        style, colour = KINDS[marks.source], colours[marks.label]
        symbol = SYMBOLS[style["marker"]] + ("" if style["filled"] else "-open")
        group = {"legendgroup": f"{marks.label} {marks.source}", "name": _escaped(f"{marks.label}, {marks.source}")}
        if marks.segments:
            figure.add_scatter(
                x=[each for low, high in marks.segments for each in (low[0], high[0], None)],
                y=[each for low, high in marks.segments for each in (low[1], high[1], None)],
                mode="lines",
                line={"color": colour, "width": 1},
                opacity=0.45,
                hoverinfo="skip",
                showlegend=False,
                legendgroup=group["legendgroup"],
            )
        figure.add_scatter(
            x=marks.x,
            y=marks.y,
            mode="lines+markers" if lines else "markers",
            marker={"color": colour, "symbol": symbol, "size": 8},
            line={"color": colour, "dash": DASHES[style["linestyle"]]},
            text=[_escaped(each) for each in marks.rows],
            **group,
        )
    figure.update_layout(
        template="plotly_white",
        legend_title_text=_escaped(f"{color}, source"),
        showlegend=True,
        title={"text": _escaped(found.note if found.marks else found.note or "no rows"), "font": {"size": 12}},
    )
    figure.update_xaxes(title_text=_escaped(found.x_title), type="log" if log_x else None)
    figure.update_yaxes(title_text=_escaped(found.y_title), type="log" if log_y else None)
    return figure


def _escaped(text: str) -> str:
    """plotly reads some tags of HTML in texts."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _not_installed(package: str, extra: str) -> ShardbenchError:
    return ShardbenchError(
        f"backend={package}: is not installed; pip install 'shardbench[{extra}]' or use the other backend"
    )
