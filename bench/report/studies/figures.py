"""The studies' figures: lines over a number, or bars stacked by what bounds them."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from bench.report.render.style import COLOURS, Drawn, draw_segments, legend, line_style, panels, plain_log_ticks
from bench.report.studies.rows import parts_of
from bench.rows.frontier import time_of
from bench.rows.interval import SAID, ends, relative_interval
from bench.rows.labels import SOURCES
from engines.core.row import Row
from engines.core.text import significant

Label = Callable[[Row], str]
Number = Callable[[Row], float]

PARTS: Final = (
    ("HBM traffic", COLOURS[0]),
    ("other computation", COLOURS[4]),
    ("exposed communication", COLOURS[1]),
)
"""Parts of a compiled bar, from below."""
DOES_NOT_FIT: Final = "does not fit"
THOUSAND: Final = 1024
BAR_WIDTH: Final = 0.7
TITLE_INCHES: Final = 0.11
"""Width of a character of a panel's title, so that no title reaches the next panel or the legend."""
CROSS_STEP: Final = 0.04
"""Between the crosses of two variants at one place, as a fraction of the panel's height."""


def lines_over(
    name: str,
    caption: str,
    rows: Sequence[Row],
    *,
    panel: Label,
    line: Label,
    x: Number,
    x_label: str,
    mfu: bool,
    memory: bool = False,
) -> Drawn:
    """One panel a group, one line a variant and kind of evidence; all axes but that of MFU are logarithmic.

    A cross near the top is a row that does not fit in memory. With ``memory`` each group has a second panel, of the
    weights and the cache that a chip holds.
    """
    groups = list(dict.fromkeys(panel(row) for row in rows))
    names = list(dict.fromkeys(line(row) for row in rows))
    colours = {each: COLOURS[place % len(COLOURS)] for place, each in enumerate(names)}
    kinds = [kind for kind in SOURCES if any(row.source == kind and row.status == "ok" for row in rows)]
    shown = [(group, held) for group in groups for held in ([False, True] if memory else [False])]
    figure, axes = panels(len(shown), width=6.8 if len(shown) == 1 else 4.6, height=4.2)
    for axis, (group, held) in zip(axes, shown, strict=True):
        mine = [row for row in rows if panel(row) == group]
        scale, label = (
            (1e-9, "weights and cache of a chip (GB)") if held else (100.0, "MFU (%)") if mfu else _unit(mine)
        )
        value = held_bytes if held else (lambda row: row.mfu) if mfu else time_of
        for each, colour in colours.items():
            for kind in kinds:
                timed = sorted((row for row in mine if _is(row, kind, each, line) and row.status == "ok"), key=x)
                values = [scale * (value(row) or 0) for row in timed]
                places = [x(row) for row in timed]
                axis.plot(places, values, **line_style(kind, colour))
                if not held:
                    draw_segments(axis, ends(timed, places, values, (0, -1 if mfu else 1)), colour)
            refused = [x(row) for row in mine if _is(row, "compiled", each, line) and row.status == "oom"]
            # One below the other where several variants do not fit at the same x.
            height = 0.98 - CROSS_STEP * names.index(each)
            if refused:
                axis.plot(
                    refused,
                    [height] * len(refused),
                    linestyle="",
                    marker="x",
                    markeredgewidth=2,
                    color=colour,
                    transform=axis.get_xaxis_transform(),
                )
        axis.set_xscale("log", base=2)
        if mfu:
            axis.set_ylim(bottom=0)
        else:
            axis.set_yscale("log")
            plain_log_ticks(axis.yaxis)
        if any(row.status == "oom" for row in mine):
            low, high = axis.get_ylim()
            room = 1 + CROSS_STEP * (1 + len(names))
            axis.set_ylim(top=high * room if mfu else high * (high / low) ** (room - 1))
        ticks = sorted({x(row) for row in mine})
        plain_log_ticks(axis.xaxis, ticks)
        axis.set_xticks(ticks, [_short(tick) for tick in ticks])
        axis.set_xlabel(x_label)
        axis.set_ylabel(label)
        axis.set_title(group)
    refusals = any(row.status == "oom" for row in rows)
    legend(figure, list(colours.items()), kinds, [(DOES_NOT_FIT, "x")] if refusals else [])
    return Drawn(name, _caption(caption, rows, "crosses"), figure)


def bars_over(
    name: str,
    caption: str,
    rows: Sequence[Row],
    *,
    panel: Label,
    bar: Label,
    published_s: Callable[[Row], float | None] | None = None,
) -> Drawn:
    """One panel a group, one stacked bar a compiled row; other kinds of evidence are marks at its edge.

    With ``published_s`` the published mark is its result for the bar's row, whatever rows are stored.
    """
    groups = list(dict.fromkeys(panel(row) for row in rows))
    bars = list(dict.fromkeys(bar(row) for row in rows))
    beside = [kind for kind in SOURCES if kind != "compiled" and any(row.source == kind for row in rows)]
    if published_s is not None:
        beside = [*(kind for kind in beside if kind != "published"), "published"]
    title = TITLE_INCHES * max(len(line) for group in groups for line in group.split("\n"))
    width = max(8.0 / len(groups), 0.5 * len(bars) + 0.9, title + 1.2)
    figure, axes = panels(len(groups), width=width, height=4.2)
    for axis, group in zip(axes, groups, strict=True):
        mine = [row for row in rows if panel(row) == group]
        shown = [each for each in bars if any(bar(row) == each for row in mine)]
        scale, label = _unit(mine)
        for row in mine:
            place = shown.index(bar(row))
            if row.source == "compiled":
                _draw_bar(axis, row, place, scale)
                stated = published_s(row) if published_s is not None else None
                if stated is not None:
                    _draw_mark(axis, "published", place, scale * stated)
            elif row.source != "published" or published_s is None:
                height = scale * (time_of(row) or 0)
                _draw_mark(axis, row.source, place, height)
                draw_segments(axis, ends([row], [place + BAR_WIDTH / 2], [height], (0, 1)), "#222222")
        axis.set_xticks(range(len(shown)), shown, rotation=40, ha="right", rotation_mode="anchor")
        axis.set_xlim(-0.6, len(shown) - 0.4)
        axis.set_ylim(bottom=0)
        axis.grid(visible=False, axis="x")
        axis.set_ylabel(label)
        axis.set_title(group)
    legend(figure, [(f"compiled: {word}", colour) for word, colour in PARTS], beside)
    kinds = ["published"] if published_s is not None else []
    return Drawn(name, _caption(caption, rows, f"bars that say “{DOES_NOT_FIT}”", kinds), figure)


def _draw_mark(axis: Any, kind: str, place: int, height: float) -> None:
    axis.plot([place + BAR_WIDTH / 2], [height], **(line_style(kind, "#222222") | {"linestyle": ""}))


def _draw_bar(axis: Any, row: Row, place: int, scale: float) -> None:
    parts = parts_of(row) if row.status == "ok" else None
    if parts is None:
        text = DOES_NOT_FIT if row.status == "oom" else row.status
        axis.text(
            place,
            0.02,
            text,
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=9,
            color="#777777",
            transform=axis.get_xaxis_transform(),
        )
        return
    bottom = 0.0
    for seconds, (_, colour) in zip((parts.memory_s, parts.compute_s, parts.exposed_s), PARTS, strict=True):
        axis.bar(place, scale * seconds, bottom=bottom, width=BAR_WIDTH, color=colour)
        bottom += scale * seconds
    axis.text(place, bottom, f"{significant(scale * (time_of(row) or 0))}", ha="center", va="bottom", fontsize=8)


def held_bytes(row: Row) -> float | None:
    """Bytes of weights and cache on a chip; None where the row does not say."""
    return None if row.weights_bytes is None or row.kv_cache_bytes is None else row.weights_bytes + row.kv_cache_bytes


def _is(row: Row, kind: str, name: str, line: Label) -> bool:
    return row.source == kind and line(row) == name


def _unit(rows: Sequence[Row]) -> tuple[float, str]:
    """Milliseconds where all times are below a second."""
    phase = "decode step" if rows[0].phase == "decode" else "prefill"
    short = max((time_of(row) or 0 for row in rows), default=0) < 1
    return (1e3, f"{phase} (ms)") if short else (1.0, f"{phase} (s)")


def _caption(caption: str, rows: Sequence[Row], marks: str, also: Sequence[str] = ()) -> str:
    kinds = [kind for kind in SOURCES if kind in also or any(row.source == kind for row in rows)]
    refused = sum(row.status == "oom" for row in rows)
    text = f" Kinds of evidence: {', '.join(kinds)}."
    if refused:
        text += f" {refused} {'row does' if refused == 1 else 'rows do'} not fit in memory: {marks}."
    if any(relative_interval(row) for row in rows):
        text += f" {SAID}"
    return caption + text


def _short(number: float) -> str:
    """Powers of two in short: 512, 2k, 1M."""
    for unit in ("", "k", "M"):
        if number < THOUSAND:
            return f"{number:g}{unit}"
        number /= THOUSAND
    return f"{number:g}G"
