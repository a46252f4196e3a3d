"""Table 1, Figure 3 and the crossovers of Pope et al. 2022, recomputed from closed forms."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bench.rows.error_stats import relative_error
from bench.sweep.catalog import load_chip, load_model
from engines.analytic import paper_forms
from engines.analytic.grid import Floats
from engines.published.table import read_table

TABLE_1_TOLERANCE: Final = 0.02
"""Relative tolerance between a computed context and the printed one."""
D_MODEL: Final = 16384
D_FF: Final = 65536
MESH_SHAPE: Final = (4, 4, 4)
CHIPS: Final = math.prod(MESH_SHAPE)
"""The feed-forward and the torus of Figure 3."""
OCTAVES: Final = (10, 24)
"""Range of Figure 3's batch, in powers of two of tokens."""
PER_OCTAVE: Final = 8
"""Points of a curve for each power of two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextLimit:
    """One entry of Table 1: the longest context, in tokens, as printed and as computed."""

    variant: str
    batch_size: int
    memory_fraction: float
    published: float
    predicted: float
    reference: str

    @property
    def relative_error(self) -> float:
        """Of the computed context against the printed one."""
        return relative_error(self.predicted, self.published) or 0.0

    @property
    def passed(self) -> bool:
        """Whether both agree within :data:`TABLE_1_TOLERANCE`."""
        return abs(self.relative_error) <= TABLE_1_TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, under the keys of a claim's check."""
        return {
            "claim": f"Table 1: longest context, {self.variant}, batch {self.batch_size}",
            "relation": "equals",
            "stated": self.published,
            "unit": "tokens",
            "value": self.predicted,
            "tolerance": TABLE_1_TOLERANCE * self.published,
            "source": "predicted",
            "engine": "analytic",
            "passed": self.passed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """From where ``after`` sends less than ``before``: by the closed form, and where the volume curves cross."""

    before: str
    after: str
    unit: str
    closed_form: float
    on_curves: float


def table_1() -> list[ContextLimit]:
    """Every entry of Table 1, in the printed order."""
    return [_entry(cells) for cells in read_table("paper_table1.csv")]


def _entry(cells: Mapping[str, str]) -> ContextLimit:
    variant, batch_size = cells["variant"], int(cells["batch_size"])
    multihead = variant.startswith("multihead")
    return ContextLimit(
        variant=variant,
        batch_size=batch_size,
        memory_fraction=float(cells["kv_memory_fraction"]),
        published=float(cells["max_context_len"]),
        predicted=paper_forms.max_context(
            load_model(f"{cells['model']}-multihead" if multihead else cells["model"]),
            load_chip(cells["hw"]),
            num_chips=int(cells["num_chips"]),
            batch_size=batch_size,
            attn_sharding="batch" if variant.endswith("batch") else "heads",
            memory_fraction=float(cells["kv_memory_fraction"]),
        ),
        reference=cells["source"],
    )


def tokens_of_figure_3() -> Floats:
    """Batches in tokens, with every power of two of the range among them."""
    first, last = OCTAVES
    return np.asarray(2.0 ** (np.arange(first * PER_OCTAVE, last * PER_OCTAVE + 1) / PER_OCTAVE))


def layout_crossings(curves: paper_forms.VolumeCurves) -> list[Crossing]:
    """Where the layout with the least volume changes as the batch grows."""
    names = list(curves.elements)
    least = np.argmin(np.stack(list(curves.elements.values())), axis=0)
    found = []
    for sample in np.flatnonzero(np.diff(least)):
        before, after = names[least[sample]], names[least[sample + 1]]
        at = _meeting(curves.tokens, curves.elements[before], curves.elements[after])
        closed_form = paper_forms.crossing_tokens(before, after, D_MODEL, D_FF, MESH_SHAPE)
        if closed_form is not None:
            found.append(Crossing(before=before, after=after, unit="tokens", closed_form=closed_form, on_curves=at))
    return found


def chip_crossing() -> Crossing:
    """Chips from which ws_2d, at its best X, sends less than ws_1d."""
    closed_form = paper_forms.chips_1d_to_2d(D_MODEL, D_FF)
    counts = np.arange(1.0, 4 * closed_form + 1)
    one = np.full_like(counts, float(paper_forms.ws_1d_elements(1, D_MODEL)))
    two = np.array([float(paper_forms.least_ws_2d_elements(1, D_MODEL, D_FF, count)) for count in counts])
    at = _meeting(counts, one, two)
    return Crossing(before="ws_1d", after="ws_2d", unit="chips", closed_form=closed_form, on_curves=at)


def _meeting(at: Floats, before: Floats, after: Floats) -> float:
    """Where ``after`` first falls below ``before``, by linear interpolation between samples."""
    gap = after - before
    second = int(np.flatnonzero(gap < 0)[0])
    share = gap[second - 1] / (gap[second - 1] - gap[second])
    return float(at[second - 1] + share * (at[second] - at[second - 1]))
