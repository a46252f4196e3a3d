"""Communication volume over batch in tokens, as in Figure 3 of Pope et al. 2022."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from bench.report.render.style import COLOURS, Drawn, line_style, panels

if TYPE_CHECKING:
    from engines.analytic.paper_forms import VolumeCurves

MARKER_TOKENS: Final = 4
"""Markers stand at every power of this many tokens."""


class Mark(NamedTuple):
    """A ring at a batch in tokens and a volume in elements, with its label."""

    tokens: float
    elements: float
    label: str


def volume_over_tokens(curves: "VolumeCurves", marks: Sequence[Mark], caption: str) -> Drawn:
    """Every layout's curve on logarithmic axes, with a ring at every crossover."""
    figure, (axis,) = panels(1, width=7.0, height=4.6)
    powers = np.log(curves.tokens) / np.log(MARKER_TOKENS)
    places = [int(place) for place in np.flatnonzero(np.isclose(powers, np.round(powers)))]
    for colour, (name, elements) in zip(COLOURS, curves.elements.items(), strict=False):
        axis.plot(curves.tokens, elements, label=name, markevery=places, **line_style("predicted", colour))
    for mark in marks:
        at = (mark.tokens, mark.elements)
        axis.plot([mark.tokens], [mark.elements], "o", markersize=12, mfc="none", mec="black", zorder=5)
        axis.annotate(mark.label, at, xytext=(10, -12), textcoords="offset points", fontsize=9, va="top")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlim(curves.tokens[0] / 1.4, curves.tokens[-1] * 1.4)
    axis.set_xlabel("batch (tokens)")
    axis.set_ylabel("volume (elements a chip sends)")
    axis.set_title("one feed-forward, by layout")
    axis.legend(loc="upper left")
    return Drawn("figure3_volume_over_tokens", caption, figure)
