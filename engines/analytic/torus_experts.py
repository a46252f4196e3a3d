"""A layer's experts on a TPU torus: ``expert_axes`` split the experts, the other axes what is inside one.

N experts of F columns, k for a token; A the expert axes of m chips, over which each chip has N/m experts, each cut over
the n/m chips of the other axes as the layout says. Tokens reach experts in one of two ways, as in
:mod:`engines.core.layout`: ``gather``, every chip of A has all tokens and the sum over experts is part of the sum over
F's axes; ``all_to_all``, each chip routes its own tokens and sends each to the chips of its k experts.
"""

from dataclasses import dataclass

import numpy as np

from engines.analytic.cost import matmul_efficiency
from engines.analytic.expert_load import busiest_hit, busiest_rows
from engines.analytic.grid import Bools, Floats, Grid
from engines.analytic.torus_links import LayerTransfers, exchange, gathering, nothing, size_of
from engines.core.layout import EXPERT_DISPATCHES, LAYOUTS
from engines.core.volume import expert_payloads


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertCost:
    """One layer's routed experts on the busiest chip: seconds of matmuls, bytes of weights and of rows, and what is sent.

    ``sends`` says whether tokens are sent by all-to-all, and ``rows`` how many rows the chip's experts get.
    """

    compute_s: Floats
    weights_bytes: Floats
    row_bytes: Floats
    transfers: LayerTransfers
    rows: Floats
    sends: Bools


@dataclass(frozen=True, slots=True)
class Cut:
    """Mesh axes of one layer's experts under ``layout`` with experts over ``axes``."""

    layout: str
    axes: str

    def _left(self, names: str) -> str:
        return "".join(axis for axis in names if axis not in self.axes)

    @property
    def embed(self) -> str:
        """Axes that split E inside an expert."""
        return self._left(LAYOUTS[self.layout].embed)

    @property
    def ffn(self) -> str:
        """Axes that split F inside an expert."""
        return self._left(LAYOUTS[self.layout].ffn)

    @property
    def gathered(self) -> str:
        """Axes over which an expert's weights are gathered."""
        return self._left(LAYOUTS[self.layout].gathered)

    @property
    def spread(self) -> str:
        """Expert axes over which tokens are split before they are sent."""
        return "".join(axis for axis in self.axes if axis not in LAYOUTS[self.layout].gathered)


def experts_possible(grid: Grid, axes: str) -> Bools:
    """Whether experts split over the axes, and an expert's columns over the others.

    Without experts there is nothing to split.
    """
    shards, chips = size_of(grid, axes), size_of(grid, "xyz")
    whole = _whole(grid.num_experts / shards) & _whole(grid.expert_hidden / (chips / shards))
    return np.where(grid.num_experts > 0, whole, not axes)


def several(grid: Grid, axes: str) -> Bools:
    """Whether each of the axes has several chips: with one it is the same as without it."""
    lengths = [getattr(grid, axis) > 1 for axis in axes]
    return np.logical_and.reduce(lengths) if lengths else np.ones(1, dtype=bool)


def _whole(parts: Floats) -> Bools:
    return np.asarray(parts == np.floor(parts))


def expert_cost(grid: Grid, layout: str, axes: str, length: Floats) -> ExpertCost:
    """One layer's routed experts for ``length`` new tokens a sequence.

    Compute: 2 FLOPs for each weight of an expert and each row of the busiest chip, rows of each expert in whole tiles of
    ``grouped_rows``, and the router's on every chip. Memory: weights of the experts that are hit, gathered ones written
    and read; rows in, between and out; the router, which every chip has.
    """
    cut = Cut(layout, axes)
    shards, chips = size_of(grid, axes), size_of(grid, "xyz")
    inside, copies = chips / shards, size_of(grid, cut.gathered)
    tokens = grid.batch * length / copies
    inputs = grid.d_model / size_of(grid, cut.embed)
    rate = grid.peak * grid.matmul_share * matmul_efficiency(grid, inputs)
    rows, hit = busiest_rows(grid, tokens, shards), busiest_hit(grid, tokens, shards)
    tiles = np.maximum(rows + hit * grid.grouped_rows / 2, hit * grid.grouped_rows)
    multiplied = np.where(grid.grouped_rows > 0, tiles, rows)
    part = grid.expert_params / inside
    router = inputs * grid.num_experts
    read = np.where(copies > 1, 2 * copies * grid.num_experts / shards, hit)
    columns = (grid.expert_inputs + grid.expert_hidden) / size_of(grid, cut.ffn)
    gathers = _sent(grid, cut, tokens, rows, sends=False)
    sends = _sent(grid, cut, tokens, rows, sends=True) if axes else gathers
    by_all_to_all = _sends(grid, cut, gathers, sends)
    transfers = sends.where(by_all_to_all, gathers)
    return ExpertCost(
        compute_s=2 * (multiplied * part + tokens * router) / rate,
        weights_bytes=read * part * grid.weight_bytes + router * grid.act_bytes,
        row_bytes=rows * (4 * inputs + columns) * grid.act_bytes,
        transfers=transfers + _gathered_weights(grid, cut, part * grid.num_experts / shards * copies),
        rows=rows,
        sends=by_all_to_all,
    )


def held_bytes(grid: Grid, layout: str, axes: str, length: Floats) -> Floats:
    """Bytes of activations while experts run: all tokens of their group, rows in, between and out, gathered weights."""
    cut = Cut(layout, axes)
    shards, copies = size_of(grid, axes), size_of(grid, cut.gathered)
    inputs = grid.d_model / size_of(grid, cut.embed)
    tokens = grid.batch * length / copies
    rows = busiest_rows(grid, tokens, shards)
    columns = (grid.expert_inputs + grid.expert_hidden) / size_of(grid, cut.ffn)
    held = np.where(grid.looped, np.minimum(grid.loop_shards, copies), copies) * (copies > 1)
    whole = held * grid.num_experts * grid.expert_params / size_of(grid, "xyz") * grid.weight_bytes / 2
    return (tokens * inputs + rows * (2 * inputs + columns)) * grid.act_bytes + whole


def _sends(grid: Grid, cut: Cut, gathers: LayerTransfers, sends: LayerTransfers) -> Bools:
    """Where tokens are sent by all-to-all: as asked, else where that takes less; never where they do not split."""
    splits = _whole(grid.batch / size_of(grid, LAYOUTS[cut.layout].gathered) / size_of(grid, cut.spread))
    several = size_of(grid, cut.axes) > 1
    gather, all_to_all = (EXPERT_DISPATCHES.index(each) for each in ("gather", "all_to_all"))
    faster = sends.total_s < gathers.total_s
    asked = np.where(grid.dispatch == gather, False, (grid.dispatch == all_to_all) | faster)
    return np.asarray(asked & splits & several)


def _sent(grid: Grid, cut: Cut, tokens: Floats, rows: Floats, *, sends: bool) -> LayerTransfers:
    """The times of :func:`engines.core.volume.expert_payloads`, of ``tokens`` of a group and the busiest chip's rows.

    All-to-alls wait for the chip that gets the most.
    """
    layout = LAYOUTS[cut.layout]

    def size(axes: str) -> Floats:
        return size_of(grid, axes)

    gathered_experts = "".join(axis for axis in cut.axes if axis in layout.gathered)
    payloads = expert_payloads(
        layout,
        cut.axes,
        size,
        sends=sends,
        tokens=tokens / size(gathered_experts) * grid.act_bytes,
        d_model=grid.d_model,
        sent=np.maximum(tokens / size(cut.axes) * grid.experts_per_token, rows) * grid.act_bytes,
        rows=rows * grid.act_bytes,
        inward=grid.expert_inputs / size(cut.ffn),
        outward=grid.expert_hidden / size(cut.ffn),
    )
    found = nothing()
    for each in payloads:
        if each.axes:
            time_of = exchange if each.kind == "all-to-all" else gathering
            found = found + time_of(grid, each.axes, each.size)
    return found


def _gathered_weights(grid: Grid, cut: Cut, elements: Floats) -> LayerTransfers:
    """All-gathers of the experts' matrices in two parts; ``elements`` is what a chip holds after them."""
    if not cut.gathered:
        return nothing()
    return gathering(grid, cut.gathered, elements * grid.weight_bytes / 2).times(np.full(1, 2.0))
