"""Crossovers: from how many tokens, and from how many chips, one layout is faster than another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from bench.planner.search import Candidate
from bench.planner.workload import counts_up_to
from engines.analytic import paper_forms, torus_attention, tpu_torus
from engines.analytic.grid import Floats, grid_of
from engines.core.layout import FFN_LAYOUTS
from engines.core.point import Point

TOKENS: Final = (2.0**4, 2.0**24)
"""Range of the search, in tokens of a batch."""
SAMPLES: Final = 2001
MOST_CHIPS: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossover:
    """From ``at`` (``unit``: tokens or chips) on, ``after`` is faster than ``before``.

    ``at`` is the engine's figure, which counts attention, gates, links, launches and overlap. ``closed_form`` is the
    paper's, from the volume of a feed-forward of two matrices alone; None where it has none.
    """

    before: str
    after: str
    unit: str
    at: float
    closed_form: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "from": self.before,
            "to": self.after,
            self.unit: self.at,
            "closed_form": self.closed_form,
        }


def layout_seconds(point: Point, layout: str, tokens: Floats) -> Floats:
    """Prefill time [tokens] of one layout at the point's length, with attention sharded over heads.

    The batch is tokens/length and may be a fraction: the forms are smooth in it.
    """
    length = point.input_len
    grid = replace(grid_of([replace(point, phase="prefill", batch_size=1)]), batch=tokens / length)
    cost = tpu_torus.forward(grid, layout, "heads", np.full(1, float(length)), np.full(1, float(length)))
    return cost.latency_s


def token_crossovers(point: Point) -> list[Crossover]:
    """Tokens at which prefill's fastest layout changes as the batch grows; empty on one chip or on GPUs."""
    if point.chip.kind == "gpu" or point.num_chips == 1 or point.input_len == 0:
        return []
    tokens = np.geomspace(*TOKENS, SAMPLES)
    layouts = [layout for layout in FFN_LAYOUTS if layout != "auto"]
    seconds = np.stack([layout_seconds(point, layout, tokens) for layout in layouts])
    fastest = np.argmin(seconds, axis=0)
    found = []
    for sample in np.flatnonzero(np.diff(fastest)):
        before, after = int(fastest[sample]), int(fastest[sample + 1])
        apart = seconds[before, sample : sample + 2] - seconds[after, sample : sample + 2]
        # Between neighbouring samples the curves are almost straight.
        share = float(apart[0] / (apart[0] - apart[1]))
        at = float(tokens[sample] + share * (tokens[sample + 1] - tokens[sample]))
        names, model = (layouts[before], layouts[after]), point.model
        closed_form = paper_forms.crossing_tokens(*names, model.d_model, model.d_ff, point.mesh)
        found.append(Crossover(before=names[0], after=names[1], unit="tokens", at=at, closed_form=closed_form))
    return found


def chip_crossover(plan: Candidate) -> Crossover | None:
    """Chips from which ws_2d beats ws_1d on the plan's own workload, each on its best mesh shape; None if never."""
    point = plan.point
    if point.chip.kind == "gpu":
        return None
    counts = [count for count in counts_up_to(point.chip, MOST_CHIPS) if count > 1]
    for count in counts:
        asked = replace(point, num_chips=count, mesh_shape=None)
        if _seconds(asked, "ws_2d") < _seconds(asked, "ws_1d"):
            return Crossover(
                before="ws_1d",
                after="ws_2d",
                unit="chips",
                at=float(count),
                closed_form=paper_forms.chips_1d_to_2d(point.model.d_model, point.model.d_ff),
            )
    return None


def _seconds(point: Point, layout: str) -> float:
    """Time of the workload's main forward pass: a decode step, or the prefill of a prefill point."""
    grid = grid_of([point])
    length = np.full(1, float(point.input_len if point.phase == "prefill" else 1))
    context = np.full(1, float(max(point.input_len, 1)))
    return min(
        float(tpu_torus.forward(grid, layout, attention, length, context).latency_s[0])
        for attention in ("heads", "batch")
        if attention == "heads" or bool(np.ravel(torus_attention.attention_shards(grid, layout, attention).possible)[0])
    )


def crossovers(plan: Candidate) -> Sequence[Crossover]:
    """Those in tokens on the plan's slice, and the one in chips."""
    in_chips = chip_crossover(plan)
    return [*token_crossovers(plan.point), *([] if in_chips is None else [in_chips])]
