"""What it costs that layers' weights, or their cache, come from the host while a pass runs.

Two layers are on the chip: one computes while the next arrives. Of a layer of mean compute time c (the pass's latency
over its L layers), let l be its bytes over the host link's rate, d those over the drive's, and w the new keys and
values sent back, over the link's rate in the other direction. The stages of that pipeline run at once, so every layer
takes the longest of them, and the first fills it: N layers in a row (those of all passes of a phase) take

    N · max(c, l, d, w) + (c + l + d + w − max(c, l, d, w)).

With the weights in host memory and no cache there, that is the first fetch and then max(compute, link) a layer, the
last of which only computes. A drive's bytes are copied on from host memory, which the link's time covers.

The first layers of a model that proposes tokens with them stay on the chip: they take c each, and N are the others. The
passes that propose, of those layers or of a draft model, come between two turns and are not part of the pipeline.
"""

from dataclasses import dataclass, replace

import numpy as np

from engines.analytic.cost import Cost
from engines.analytic.gpu_ranks import Ranks, cached_elements, weights_on_rank
from engines.analytic.grid import Floats, Grid
from engines.analytic.torus_attention import Shards
from engines.analytic.tpu_torus import weights_on_chip


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBytes:
    """Bytes of one chip, as means over layers: the weights, the cache that a pass reads, and what it adds to it.

    A prompt read at once reads no cache; a step does, and so does a pass that verifies tokens.
    """

    weights: Floats
    cache_read: Floats
    cache_new: Floats


def torus_bytes(grid: Grid, layout: str, shards: Shards, length: Floats, read: Floats) -> LayerBytes:
    """A torus: a chip's part of the weights as stored; gathered layouts gather what has arrived.

    A pass of ``length`` new tokens a sequence reads ``read`` cached ones.
    """

    def cached(tokens: Floats) -> Floats:
        return shards.kv_elements(grid, grid.batch * tokens) * grid.kv_bytes

    return LayerBytes(
        weights=weights_on_chip(grid, layout) * grid.weight_bytes,
        cache_read=cached(read),
        cache_new=cached(length),
    )


def nodes_bytes(grid: Grid, ranks: Ranks, length: Floats, read: Floats) -> LayerBytes:
    """GPUs, likewise: a rank's part of the weights; one stage has all layers."""

    def cached(tokens: Floats) -> Floats:
        return cached_elements(grid, ranks, np.ceil(grid.batch / ranks.data) * tokens) * grid.kv_bytes

    return LayerBytes(
        weights=weights_on_rank(grid, ranks) * grid.weight_bytes,
        cache_read=cached(read),
        cache_new=cached(length),
    )


def streamed(grid: Grid, cost: Cost, of_layer: LayerBytes, count: Floats) -> Cost:
    """``count`` passes in a row, each of which costs ``cost`` where all is on the chip.

    The link's and the drive's busy time counts as ``communication_s``, what of all stages runs at once as
    ``overlapped_s``. Points that keep everything on the chip cost ``count`` times ``cost``.
    """
    passes, compute_s = cost.times(count), cost.latency_s / grid.layers
    layers = grid.layers - grid.first_layers
    weights = of_layer.weights * grid.offloads
    link_s = (weights + of_layer.cache_read * grid.offloads_kv) / grid.host_bytes_per_s
    back_s = of_layer.cache_new * grid.offloads_kv / grid.host_bytes_per_s
    drive_s = weights / grid.nvme_bytes_per_s
    stages = np.stack(np.broadcast_arrays(compute_s, link_s, drive_s, back_s))
    longest, together = stages.max(axis=0), stages.sum(axis=0)
    runs = count > 0
    total = count * (layers * longest + grid.first_layers * compute_s) + np.where(runs, together - longest, 0.0)
    sent_s = count * layers * (together - compute_s)
    return replace(
        passes,
        communication_s=passes.communication_s + sent_s,
        overlapped_s=passes.overlapped_s + passes.latency_s + sent_s - total,
    )
