"""Which keys of a point a phase ran with, where the point left them open."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.analytic.attention import absorbs
from engines.analytic.gpu_experts import expert_cost as on_nodes
from engines.analytic.gpu_nodes import micro_batch
from engines.analytic.grid import Bools, Grid, Ints
from engines.analytic.predict import ranks_of
from engines.analytic.strategies import STRATEGIES, Strategy
from engines.analytic.torus_experts import expert_cost as on_torus
from engines.core.point import Point


def resolved(points: Sequence[Point], grid: Grid, name: str, strategies: Ints) -> list[dict[str, Any]]:
    """For each of the ``points`` of a grid the keys with which the phase ``name`` ran ``strategies`` [points]."""
    prefill = name == "prefill"
    length = grid.input_len if prefill else np.ones(1)
    keys = grid.input_len if prefill else grid.input_len + (grid.steps + 1) / 2
    absorbed = np.broadcast_to(absorbs(grid, length, keys), (len(points),))
    sends = np.zeros(len(points), dtype=bool)
    if np.any(grid.expert_layers):
        for strategy in np.unique(strategies):
            mine = np.flatnonzero(np.asarray(strategies) == strategy)
            sends[mine] = _sends(grid.take(mine), STRATEGIES[int(strategy)], prefill)
    return [
        _keys(point, STRATEGIES[int(strategy)], bool(absorbed[index]), bool(sends[index]))
        for index, (point, strategy) in enumerate(zip(points, strategies, strict=True))
    ]


def _sends(grid: Grid, strategy: Strategy, prefill: bool) -> Bools:
    length = grid.input_len if prefill else np.ones(1)
    if not np.all(grid.gpu):
        return on_torus(grid, strategy.layout, strategy.experts, length).sends
    ranks, tokens = ranks_of(grid, strategy), micro_batch(grid, length) * length
    return on_nodes(grid, ranks, tokens, tokens / ranks.data).sends


def _keys(point: Point, strategy: Strategy, absorbed: bool, sends: bool) -> dict[str, Any]:
    model = point.model
    found: dict[str, Any] = {}
    if point.num_chips > 1:
        latent = model.attention.is_latent and strategy.attention == "heads"
        found |= {"ffn_layout": strategy.layout, "attn_sharding": "replicated" if latent else strategy.attention}
    if model.attention.is_latent:
        found["latent_attention"] = "absorbed" if absorbed else "expanded"
    if point.num_chips == 1:
        return found
    sparse, data = model.num_experts is not None, point.data_parallel or strategy.data
    if point.chip.kind == "gpu" and (sparse or data > 1):
        found["data_parallel"] = data
    if not sparse:
        return found
    if point.chip.kind == "gpu":
        spread = math.gcd(point.tensor_degree, model.num_experts or 1) if strategy.spread else 1
        found["expert_parallel"] = point.expert_parallel or spread
    else:
        found["expert_axes"] = strategy.experts or "none"
    return found | {"expert_dispatch": "all_to_all" if sends else "gather"}
