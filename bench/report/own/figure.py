"""A figure of a template's own: one figure of rows over another, in the style of all reports."""

import math
from collections.abc import Sequence
from typing import Final

from bench.report.own.pivot import KEYS, VALUES, value_of
from bench.report.render.style import COLOURS, Drawn, legend, line_style, panels, plain_log_ticks
from bench.rows.labels import SOURCES
from bench.rows.metrics import METRICS
from bench.rows.table import plain_text
from engines.core.errors import InvalidRequest
from engines.core.row import Row

SCALES: Final = ("linear", "log")


def scatter(
    rows: Sequence[Row],
    x: str,
    y: str,
    colour: str | None = None,
    *,
    name: str,
    caption: str = "",
    lines: bool = False,
    scale: str = "log",
) -> Drawn:
    """A mark a row, filled where somebody observed it and hollow where it was computed; a colour a value of ``colour``.

    With ``lines`` the marks of one colour and kind of evidence are joined in the order of ``x``. A row without a valid
    and finite value of both, or on a logarithmic axis a positive one, is left out, which the caption says.

    Raises:
        InvalidRequest: a key is not one of a row's numbers, or no row has both.
    """
    for key, value, known in (("x", x, VALUES), ("y", y, VALUES), ("colour", colour or KEYS[0], KEYS)):
        if value not in known:
            raise InvalidRequest(key, value, "is no number of a row" if key != "colour" else "is not known",
                                 f"use one of {', '.join(known)}")  # fmt: skip
    if scale not in SCALES:
        raise InvalidRequest("scale", scale, "is not known", f"use one of {', '.join(SCALES)}")
    placed = [(row, *place) for row in rows if (place := _place(row, x, y, scale)) is not None]
    if not placed:
        raise InvalidRequest("figure", f"{y} over {x}", "has no row with both", "choose other rows or keys")
    groups = sorted({plain_text(getattr(row, colour)) for row, *_ in placed}) if colour else [""]
    colours = {group: COLOURS[place % len(COLOURS)] for place, group in enumerate(groups)}
    figure, (axis,) = panels(1, width=6.8, height=4.4)
    for group, drawn_in in colours.items():
        for source in SOURCES:
            mine = sorted(
                (at, over)
                for row, at, over in placed
                if row.source == source and (not colour or plain_text(getattr(row, colour)) == group)
            )
            style = line_style(source, drawn_in) | ({} if lines else {"linestyle": ""})
            axis.plot([at for at, _ in mine], [over for _, over in mine], **style)
    for side, key, label in ((axis.xaxis, x, axis.set_xlabel), (axis.yaxis, y, axis.set_ylabel)):
        label(METRICS[key].title if key in METRICS else key)
        if scale == "log":
            (axis.set_xscale if side is axis.xaxis else axis.set_yscale)("log")
            plain_log_ticks(side)
    kinds = [source for source in SOURCES if any(row.source == source for row, *_ in placed)]
    legend(figure, list(colours.items()) if colour else [], kinds)
    left = len(rows) - len(placed)
    said = f"{caption.rstrip('.')}." if caption else f"{axis.get_ylabel()} over {axis.get_xlabel()}."
    out = f" {left} of {len(rows)} rows have no such value." if left else ""
    return Drawn(name, f"{said} Kinds of evidence: {', '.join(kinds)}.{out}", figure)


def _place(row: Row, x: str, y: str, scale: str) -> tuple[float, float] | None:
    at, over = value_of(row, x), value_of(row, y)
    if at is None or over is None or (scale == "log" and min(at, over) <= 0):
        return None
    scaled = [value * (METRICS[key].scale if key in METRICS else 1.0) for key, value in ((x, at), (y, over))]
    return (scaled[0], scaled[1]) if all(map(math.isfinite, scaled)) else None
