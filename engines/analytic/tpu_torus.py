"""Forward passes on a TPU torus: every feed-forward layout × attention sharding (Pope et al. 2022, section 3).

T = B·L tokens pass; E, F, H, K, D as in :mod:`engines.core.model`; X, Y, Z the mesh, n = X·Y·Z; a and w are bytes an
activation and a weight take. g = 2 where the feed-forward is gated, else 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engines.analytic.cost import Cost, matmul_efficiency, roofline_overlap
from engines.analytic.grid import Bools, Floats, Grid
from engines.core.layout import LAYOUTS
from engines.core.volume import activation_payloads, gathered_weights


def size_of(grid: Grid, axes: str) -> Floats:
    """Chips along ``axes``."""
    size: Floats = np.ones(1)
    for axis in axes:
        size = size * getattr(grid, axis)
    return size


def bandwidth(grid: Grid, axes: str) -> Floats:
    """Bytes/s that a chip receives in a collective along ``axes``; infinite where they hold one chip.

    Along one axis two links of a ring (one where the loop goes one way), or one of a line, whose last chip
    has a single neighbor. Each further axis adds ``axis_gain`` of its own links: at 1 the phases along all axes run in
    parallel (90, 180 and 270 GB/s on TPU v4, as Pope et al. 2022 count links), at 0 one axis after the other.
    """
    first = np.zeros(1)
    total = np.zeros(1)
    for axis in axes:
        links = np.minimum(getattr(grid, f"links_{axis}"), grid.directions)
        first = np.maximum(first, links)
        total = total + links
    used = first + grid.axis_gain * (total - first)
    return np.where(used > 0, used, np.inf) * grid.link_bytes_per_s * grid.link_efficiency


def transfer_s(grid: Grid, axes: str, size_bytes: Floats) -> Floats:
    """All-gather or reduce-scatter along ``axes``: ``size_bytes`` is the larger side, a chip's gathered tensor.

    size · (k − 1)/k / bandwidth with k chips along the axes: a chip has its own part already (Pope et al. 2022,
    appendix A.1, who then take (k − 1)/k as 1).
    """
    shards = size_of(grid, axes)
    return size_bytes * (1 - 1 / shards) / bandwidth(grid, axes)


def all_to_all_s(grid: Grid, axes: str, size_bytes: Floats) -> Floats:
    """All-to-all along ``axes`` of ``size_bytes`` that a chip holds, transfer only.

    Every piece is routed straight to its chip. Along a ring of k it goes k/4 hops on average over two links, along a
    line k/3 over one, and each link carries an equal part; the axes work in parallel, so the longest decides.
    """
    slowest: Floats = np.zeros(1)
    for axis in axes:
        size, links = getattr(grid, axis), getattr(grid, f"links_{axis}")
        hops_per_link = np.where(links == 2, size / 8, size / 3)
        slowest = np.maximum(slowest, np.where(links > 0, hops_per_link, 0.0))
    return size_bytes * slowest / (grid.link_bytes_per_s * grid.link_efficiency)


def hops(grid: Grid, axes: str) -> Floats:
    """Hops to the farthest chip along ``axes``: k/2 along a ring, k − 1 along a line."""
    total: Floats = np.zeros(1)
    for axis in axes:
        size, links = getattr(grid, axis), getattr(grid, f"links_{axis}")
        total = total + np.where(links == 2, size / 2, size - 1)
    return total


def start_s(grid: Grid, axes: str) -> Floats:
    """Time of an all-gather or reduce-scatter along ``axes`` besides its bytes, zero where there is one chip.

    collective_s for the phase along each axis of several chips, and hop_s for each of :func:`hops`.
    """
    phases = sum((getattr(grid, axis) > 1 for axis in axes), start=np.zeros(1))
    return grid.collective_s * phases + grid.hop_s * hops(grid, axes)


def padded_heads(grid: Grid) -> Floats:
    """Query heads as run: padded so that the chips, or the next power of two of heads if fewer, get equal parts.

    PaLM 540B's 48 heads are run as 64 on 64 chips (Pope et al. 2022, section 4).
    """
    shards = head_shards(grid)
    return np.ceil(grid.heads / shards) * shards


def head_shards(grid: Grid) -> Floats:
    """Chips over which heads split: all of them up to the next power of two of heads."""
    return np.asarray(np.minimum(size_of(grid, "xyz"), grid.max_head_shards))


def layer_weights(grid: Grid) -> Floats:
    """Elements of one layer's matrices as run, heads padded; key/value heads too where each query head has its own."""
    heads = padded_heads(grid)
    kv = np.where(grid.kv_heads == grid.heads, heads, grid.kv_heads)
    return 2 * grid.d_model * grid.head_dim * (heads + kv) + grid.ffn_params


def weights_on_chip(grid: Grid, layout: str) -> Floats:
    """Elements of one layer's matrices on a chip: 1/n of them, but k|v on every chip that has the same rows of E.

    The k and v projections are cut over at most K heads: [E, 2·K·D] whole in ws_1d where K = 1, [E.x, 2·K·D] in the
    layouts that keep weights in two dimensions.
    """
    chips = size_of(grid, "xyz")
    kv_heads = np.where(grid.kv_heads == grid.heads, padded_heads(grid), grid.kv_heads)
    key_value = 2 * grid.d_model * grid.head_dim * kv_heads
    rows = size_of(grid, LAYOUTS[layout].stored_embed)
    copied = key_value / rows / np.minimum(chips / rows, kv_heads)
    return (layer_weights(grid) - key_value) / chips + copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """How attention is split: number of chips over which sequences and heads are split."""

    batch: Floats
    heads: Floats
    moved: Floats
    """Chips among which an all-to-all exchanges q, k, v and the output; 1 where none is needed."""
    possible: Bools

    def kv_elements(self, grid: Grid, tokens: Floats) -> Floats:
        """Elements of one layer's cache on a chip for ``tokens`` [B·context]: 2·D·K, copied where K < shards."""
        padded = np.where(grid.kv_heads == grid.heads, padded_heads(grid), grid.kv_heads)
        local = np.maximum(np.ceil(padded / self.heads), 1.0)
        return 2 * grid.head_dim * local * tokens / self.batch


def _divides(shards: Floats, batch: Floats) -> Bools:
    # np.remainder of floats would take longer than everything else here.
    parts = batch / shards
    return np.asarray(parts == np.floor(parts))


def attention_shards(grid: Grid, layout: str, attention: str) -> Shards:
    """Attention under ``layout``, split over ``heads`` or over ``batch``.

    Heads: a gathered layout has the batch split over its axes already and heads over the others. Batch: the largest
    of xyz, yz, z whose shards divide the batch, heads over the axes that are left.
    """
    chips = size_of(grid, "xyz")
    gathered = size_of(grid, LAYOUTS[layout].gathered)
    fits = _divides(gathered, grid.batch)
    most = head_shards(grid)
    if attention == "heads":
        return Shards(
            batch=gathered, heads=np.minimum(chips / gathered, most), moved=np.ones(1), possible=fits & (chips > 0)
        )
    shards = np.ones(1)
    for axes in ("z", "yz", "xyz"):
        size = size_of(grid, axes)
        shards = np.where((size > 1) & _divides(size, grid.batch), size, shards)
    shards = np.maximum(shards, gathered)
    return Shards(
        batch=shards,
        heads=np.minimum(chips / shards, most),
        moved=np.where(shards > gathered, shards, 1.0),
        possible=fits & (shards > 1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTransfers:
    """Communication of one layer: seconds of transfer, and seconds before first bytes."""

    transfer_s: Floats
    start_s: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """All-gathers or reduce-scatters that a layer runs ``count`` times; ``size_bytes`` is the larger side on a chip."""

    axes: str
    size_bytes: Floats
    count: Floats


def layer_collectives(grid: Grid, layout: str, tokens: Floats) -> Iterator[Collective]:
    """Collectives of one layer's projections for ``tokens`` = B·L: :func:`engines.core.volume.activation_payloads`.

    A parallel block runs those of the residual once, a serial block once for attention and once for the feed-forward;
    the columns of both go together, in a serial block in halves (Pope et al. 2022, sections 3.2 and 3.4; feed-forward
    volumes as in appendix A.2). Into them are H·D + 2·K·D + F inputs, out of them H·D + F; multiquery's one key/value
    head is not cut over F's axes. Gathered layouts gather the layer's weights as well, in two parts a block.
    """
    cut, blocks = LAYOUTS[layout], np.where(grid.serial, 2.0, 1.0)

    def size(axes: str) -> Floats:
        return size_of(grid, axes)

    across = size(cut.ffn)
    query = padded_heads(grid) * grid.head_dim / across
    key_value = 2 * grid.head_dim * np.maximum(np.ceil(grid.kv_heads / across), 1.0)
    if cut.gathered:
        weights = gathered_weights(cut, size, layer_weights(grid) * grid.weight_bytes)
        yield Collective(axes=cut.gathered, size_bytes=weights / (2 * blocks), count=2 * blocks)
    payloads = activation_payloads(
        cut,
        size,
        tokens=tokens / size(cut.gathered) * grid.act_bytes,
        d_model=grid.d_model,
        inward=query + key_value + grid.ffn_inputs / across,
        outward=query + grid.ffn_hidden / across,
    )
    for each in payloads:
        if each.of == "residual":
            yield Collective(axes=each.axes, size_bytes=each.size, count=blocks)
        elif each.axes:
            yield Collective(axes=each.axes, size_bytes=each.size / blocks, count=blocks)


def layer_transfers(grid: Grid, layout: str, tokens: Floats) -> LayerTransfers:
    """The times of :func:`layer_collectives`."""
    transfer: Floats = np.zeros(1)
    start: Floats = np.zeros(1)
    for each in layer_collectives(grid, layout, tokens):
        transfer = transfer + each.count * transfer_s(grid, each.axes, each.size_bytes)
        start = start + each.count * start_s(grid, each.axes)
    return LayerTransfers(transfer_s=transfer, start_s=start)


def attention_transfers(grid: Grid, shards: Shards, tokens: Floats) -> LayerTransfers:
    """The all-to-alls that bring q, k, v of the new tokens to the cache and the result back (section 3.3).

    A chip holds T·(H·D)/n of q and as much of the result, and T·2·K·D/n of k and v.
    """
    moved = shards.moved > 1
    held = tokens * (2 * padded_heads(grid) + 2 * grid.kv_heads) * grid.head_dim / size_of(grid, "xyz")
    return LayerTransfers(
        transfer_s=np.where(moved, all_to_all_s(grid, "xyz", held * grid.act_bytes), 0.0),
        start_s=np.where(moved, 2 * (grid.collective_s + grid.hop_s * hops(grid, "xyz")), 0.0),
    )


def forward(grid: Grid, layout: str, attention: str, length: Floats, context: Floats) -> Cost:
    """One forward pass of ``length`` new tokens a sequence, each attending to ``context`` keys.

    Compute: 2·T·W of the chip's part W of the projections and 4·T·context·H·D over the attention shards, at the
    matmul's efficiency; 2·B·V·E/n of the logits. Memory: weights once (gathered weights are written and read, N times
    the chip's part), the cache of B·context tokens once, the scores ``score_passes`` times. Communication:
    :func:`layer_transfers` and :func:`attention_transfers`; a loop hides loop_hidden of the projections' transfer under
    compute left for it, and ``prefetch`` of what is left, and of fixed costs, runs under the reading of weights.
    """
    chips = size_of(grid, "xyz")
    shards = attention_shards(grid, layout, attention)
    gathered = size_of(grid, LAYOUTS[layout].gathered)
    tokens = grid.batch * length
    heads = padded_heads(grid)
    weights = weights_on_chip(grid, layout)

    inputs = grid.d_model / size_of(grid, LAYOUTS[layout].embed)
    rate = grid.peak * grid.matmul_share * matmul_efficiency(grid, inputs)
    active = weights - (grid.ffn_params - grid.ffn_active_params) / chips
    projections_s = 2 * tokens * active / rate
    pairs = tokens * context * heads / (shards.batch * shards.heads)
    attention_s = 4 * pairs * grid.head_dim / (grid.stream_peak * grid.matmul_efficiency * grid.attention_matmul)
    logits_s = 2 * grid.batch * grid.vocab * grid.d_model / chips / (rate * (grid.head_peak / grid.peak))
    compute_s = grid.layers * (projections_s + attention_s) + logits_s

    stream = grid.hbm_bytes_per_s * grid.hbm_efficiency
    copies = np.where(gathered > 1, 2 * gathered, 1.0)
    loaded = weights * grid.weight_bytes * copies / grid.weight_stream
    cached = shards.kv_elements(grid, grid.batch * context) * grid.kv_bytes / grid.cache_efficiency
    scores = grid.score_passes * pairs * grid.act_bytes
    # Every matmul reads its input and writes its output; XLA fuses the operations between them.
    across = size_of(grid, LAYOUTS[layout].ffn)
    passed = 2 * inputs + (2 * heads * grid.head_dim + grid.ffn_inputs + grid.ffn_hidden) / across
    vectors = tokens / gathered * passed * np.where(grid.serial, 2.0, 1.0) * grid.act_bytes * grid.vector_passes
    embedding = grid.vocab * grid.d_model * grid.head_bytes / chips
    memory_s = (grid.layers * (loaded + cached + scores + vectors) + embedding) / stream

    projections, all_to_alls = layer_transfers(grid, layout, tokens), attention_transfers(grid, shards, tokens)
    transfers = grid.layers * (projections.transfer_s + all_to_alls.transfer_s)
    starts = grid.layers * (projections.start_s + all_to_alls.start_s)
    # Compute that already overlaps memory time cannot also hide communication.
    under_memory = roofline_overlap(grid, compute_s, memory_s)
    spare = np.minimum(grid.layers * projections_s, compute_s - under_memory)
    hidden = np.where(grid.looped, np.minimum(grid.loop_hidden * grid.layers * projections.transfer_s, spare), 0.0)
    # A compiler that fetches the next weights ahead does so while the chip waits for others, or starts a layer.
    waiting = transfers + starts - hidden + grid.layers * grid.layer_s
    fetched = grid.prefetch * np.minimum(waiting, np.maximum(grid.layers * loaded / stream - under_memory, 0.0))
    sampled = grid.sampling_s_per_logit * grid.batch * grid.vocab / chips
    return Cost(
        compute_s=compute_s,
        memory_s=memory_s,
        communication_s=transfers + starts,
        overhead_s=grid.layers * grid.layer_s + grid.step_s + sampled,
        overlapped_s=under_memory + hidden + fetched,
    )
