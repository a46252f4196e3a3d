"""Early exit as passes of fewer layers: those of the last token of a step, and keys and values of all the others.

How many layers a pass runs on average, and at how many exits it computes logits, is in :mod:`engines.core.early_exit`.
The closed forms are sums over layers, so a pass is taken at the mean of them. A layer that no token passes any more
reads the weights of keys and values, multiplies and caches; it takes a layer's fixed time in full, as no row tells how
much less it is.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from engines.analytic.attention import cached_width
from engines.analytic.cost import Cost, matmul_efficiency, roofline_overlap
from engines.analytic.gpu_ranks import Ranks
from engines.analytic.grid import Floats, Grid
from engines.analytic.torus_attention import Shards, key_value_columns, key_value_on_chip
from engines.analytic.torus_links import exchange, gathering, nothing, size_of
from engines.core.layout import LAYOUTS
from engines.core.volume import activation_payloads, gathered_weights

BY_LAYER: Final = ("layers", "window_layers", "dense_layers", "expert_layers")


def passed(grid: Grid, name: str) -> Grid:
    """The grid with the layers that a pass of the phase ``name`` runs; a prefill runs all, without exits."""
    if not np.any(grid.exit_heads):
        return grid
    if name == "prefill":
        return replace(grid, exit_heads=np.zeros(1))
    return replace(grid, **{each: getattr(grid, each) * (1 - grid.skipped) for each in BY_LAYER})


def cached_on_torus(grid: Grid, layout: str, shards: Shards, length: Floats) -> Cost:
    """What the skipped layers of a pass of ``length`` tokens a sequence still do, on a torus.

    Of the collectives of :func:`engines.core.volume.activation_payloads` those into the projection, with the columns of
    keys and values alone; gathered layouts gather their weights; over the batch they move to where their sequence is.
    """
    cut, tokens = LAYOUTS[layout], grid.batch * length
    weights, gathered = key_value_on_chip(grid, layout), size_of(grid, cut.gathered)

    def size(axes: str) -> Floats:
        return size_of(grid, axes)

    sent = nothing()
    for each in activation_payloads(
        cut,
        size,
        tokens=tokens / gathered * grid.act_bytes,
        d_model=grid.d_model,
        inward=key_value_columns(grid, size(cut.ffn)),
        outward=np.zeros(1),
    ):
        if each.side == "in" and each.axes:
            sent = sent + gathering(grid, each.axes, each.size)
    if cut.gathered:
        whole = gathered_weights(cut, size, weights * size_of(grid, "xyz") * grid.weight_bytes)
        sent = sent + gathering(grid, cut.gathered, whole)
    columns = np.where(grid.latent, 0.0, 2 * grid.kv_heads * grid.head_dim)
    moved = exchange(grid, "xyz", tokens * columns / size_of(grid, "xyz") * grid.act_bytes)
    sent = sent + moved.where(shards.moved > 1, nothing())
    copies = np.where(gathered > 1, 2 * gathered, 1.0)
    efficiency = matmul_efficiency(grid, grid.d_model / size_of(grid, cut.embed))
    return _of_layers(grid, 2 * tokens * weights, efficiency, weights * copies, sent.total_s)


def cached_on_nodes(grid: Grid, ranks: Ranks, length: Floats) -> Cost:
    """The same on GPU nodes, where every rank of a layer has its input whole: nothing is sent."""
    columns = 2 * np.maximum(np.ceil(grid.kv_heads / ranks.attention(grid)), 1.0) * grid.head_dim
    weights = grid.d_model * np.where(grid.latent, cached_width(grid), columns)
    tokens = np.ceil(grid.batch / ranks.data) * length
    device = _of_layers(grid, 2 * tokens * weights, matmul_efficiency(grid, grid.d_model), weights, np.zeros(1))
    host_s = grid.layers * grid.skipped * grid.host_layer_s
    return replace(
        device,
        overhead_s=device.overhead_s + host_s,
        overlapped_s=device.overlapped_s + np.minimum(host_s, device.latency_s),
    )


def _of_layers(grid: Grid, flops: Floats, efficiency: Floats, elements: Floats, sent_s: Floats) -> Cost:
    """The skipped layers, of each of which ``elements`` of weights pass HBM."""
    count = grid.layers * grid.skipped
    compute_s = count * flops / (grid.peak * grid.matmul_share * efficiency)
    stream = grid.hbm_bytes_per_s * grid.hbm_efficiency * grid.weight_stream
    memory_s = count * elements * grid.weight_bytes / stream
    return Cost(
        compute_s=compute_s,
        memory_s=memory_s,
        communication_s=count * sent_s,
        overhead_s=count * grid.layer_s,
        overlapped_s=roofline_overlap(grid, compute_s, memory_s),
    )
