"""The study of speculative decoding: how much faster than plain decoding, over the acceptance rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.rows.frontier import time_of
from bench.rows.labels import SOURCES, by_source, model_label
from bench.rows.table import Column, Table
from engines.core.row import Row

if TYPE_CHECKING:
    from bench.report.render.style import Drawn

SAME: Final = ("model", "hw", "num_chips", "phase", "batch_size", "input_len", "output_len", "weight_dtype", "source")
"""Keys in which the plain row must agree with the row that it is compared with."""
MOST: Final = 2
"""Machines that a sentence names."""


def speed_up(row: Row, rows: Sequence[Row]) -> float | None:
    """Time of a token of the plain row of the same workload and kind of evidence, over that of the row."""
    plain = next((each for each in rows if each.speculative is None and _workload(each) == _workload(row)), None)
    mine, theirs = time_of(row), None if plain is None else time_of(plain)
    return theirs / mine if mine and theirs else None


def best_speed_ups(rows: Sequence[Row]) -> tuple[str, dict[str, Any]] | None:
    """The largest speed-up of each machine, the rate and tokens that it is at, and the least rate that gains at all."""
    numbers, words = dict[str, Any](), list[str]()
    for panel in dict.fromkeys(map(_panel, rows)):
        mine = [row for row in rows if _panel(row) == panel and row.speculative is not None]
        ups = [(up, row) for row in mine if (up := speed_up(row, rows)) is not None]
        if not ups:
            continue
        most, row = max(ups, key=lambda each: each[0])
        gains = [row.acceptance_rate for up, row in ups if up > 1 and row.acceptance_rate is not None]
        numbers |= {f"{panel}.speed_up": most, f"{panel}.draft_len": row.draft_len}
        numbers |= {f"{panel}.acceptance_rate": row.acceptance_rate, f"{panel}.gains_from": min(gains, default=None)}
        words.append(f"{model_label(row.model)} decodes up to {most:.2f}×")
    return (f"With an 8B draft {' and '.join(words[:MOST])} as fast as without.", numbers) if words else None


@dataclass(frozen=True, slots=True)
class SpeedUps:
    """One panel a machine, one line a number of proposed tokens and kind of evidence, over the acceptance rate."""

    def draw(self, name: str, caption: str, rows: Sequence[Row]) -> "Drawn":
        """The figure; what is above 1 is faster than plain decoding."""
        from bench.report.render.style import COLOURS, Drawn, legend, line_style, panels

        groups, lengths = list(dict.fromkeys(map(_panel, rows))), _lengths(rows)
        colours = {length: COLOURS[place % len(COLOURS)] for place, length in enumerate(lengths)}
        kinds = [kind for kind in SOURCES if any(row.source == kind and row.status == "ok" for row in rows)]
        figure, axes = panels(len(groups), width=4.8, height=4.2)
        for axis, group in zip(axes, groups, strict=True):
            for length, colour in colours.items():
                for kind in kinds:
                    mine = [row for row in rows if (_panel(row), row.source, row.draft_len) == (group, kind, length)]
                    drawn = sorted((row.acceptance_rate or 0.0, up) for row in mine if (up := speed_up(row, rows)))
                    axis.plot(*zip(*drawn, strict=True) if drawn else ((), ()), **line_style(kind, colour))
            axis.axhline(1, color="#777777", linewidth=0.8)
            axis.set_ylim(bottom=0)
            axis.set_xlabel("acceptance rate")
            axis.set_ylabel("speed-up over plain decoding")
            axis.set_title(group)
        legend(figure, [(f"{length} proposed", colour) for length, colour in colours.items()], kinds)
        return Drawn(name, f"{caption} Kinds of evidence: {', '.join(kinds)}. The line at 1 is plain decoding.", figure)

    def table(self, name: str, rows: Sequence[Row]) -> Table | None:
        """The compiled speed-ups: a line for each machine and acceptance rate, a column for each number of tokens."""
        mine = [row for row in by_source(rows, "compiled") if row.speculative is not None and row.status == "ok"]
        if not mine:
            return None
        cells: dict[tuple[str, float], dict[str, Any]] = {}
        for row in mine:
            key = _panel(row), row.acceptance_rate or 0.0
            cells.setdefault(key, {"machine": key[0], "rate": key[1]})[f"{row.draft_len}"] = speed_up(row, rows)
        columns = [Column("machine", "machine"), Column("rate", "accepted (%)", 100.0, ".0f")]
        columns += [Column(f"{length}", f"{length} proposed", 1.0, ".2f") for length in _lengths(mine)]
        return Table(
            name=name, caption="Compiled speed-up over plain decoding", columns=columns, rows=list(cells.values())
        )


def _workload(row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, key) for key in SAME)


def _panel(row: Row) -> str:
    return f"{model_label(row.model)}, {row.num_chips} × {row.hw}, batch {row.batch_size}"


def _lengths(rows: Sequence[Row]) -> list[int]:
    return sorted({row.draft_len for row in rows if row.draft_len is not None})
