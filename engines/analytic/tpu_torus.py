"""Forward passes on a TPU torus: every feed-forward layout × attention sharding (Pope et al. 2022, section 3).

T = B·L tokens pass; E, F, H, K, D as in :mod:`engines.core.model`; X, Y, Z the mesh, n = X·Y·Z; a and w are bytes an
activation and a weight take. g = 2 where the feed-forward is gated, else 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engines.analytic.attention import absorbs, output_width, query_columns, query_width, value_width
from engines.analytic.cost import Cost, matmul_efficiency, roofline_overlap
from engines.analytic.grid import Floats, Grid
from engines.analytic.torus_attention import (
    attention_on_chip,
    attention_shards,
    attention_transfers,
    attention_weights,
    expanded_elements,
    key_value_columns,
    made_again,
    padded_heads,
)
from engines.analytic.torus_experts import ExpertCost, expert_cost
from engines.analytic.torus_links import LayerTransfers, size_of, start_s, transfer_s
from engines.core.layout import LAYOUTS
from engines.core.volume import activation_payloads, gathered_weights


def layer_weights(grid: Grid) -> Floats:
    """Elements of one dense layer's matrices as run, heads padded."""
    return attention_weights(grid) + grid.ffn_params


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseColumns:
    """The feed-forward that all tokens pass, as a mean over layers: its own, or the shared one beside experts."""

    params: Floats
    inputs: Floats
    hidden: Floats
    there: Floats
    """Share of the layers that have one."""


def dense_columns(grid: Grid) -> DenseColumns:
    """Dense layers' feed-forward and the shared expert of those with experts, weighted by their layers."""
    if not np.any(grid.expert_layers):
        return DenseColumns(params=grid.ffn_params, inputs=grid.ffn_inputs, hidden=grid.ffn_hidden, there=np.ones(1))
    dense, mixed = grid.dense_layers / grid.layers, grid.expert_layers / grid.layers
    return DenseColumns(
        params=dense * grid.ffn_params + mixed * grid.shared_params,
        inputs=dense * grid.ffn_inputs + mixed * grid.shared_inputs,
        hidden=dense * grid.ffn_hidden + mixed * grid.shared_hidden,
        there=dense + mixed * (grid.shared_params > 0),
    )


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
    head is not cut over F's axes. Gathered layouts gather the layer's weights as well, in two parts a block. Where only
    some layers have a feed-forward for all tokens, ``count`` is a mean over layers.
    """
    cut, ffn = LAYOUTS[layout], dense_columns(grid)
    blocks = np.where(grid.serial, 1.0 + ffn.there, 1.0)

    def size(axes: str) -> Floats:
        return size_of(grid, axes)

    across = size(cut.ffn)
    if cut.gathered:
        weights = gathered_weights(cut, size, (attention_weights(grid) + ffn.params) * grid.weight_bytes)
        yield Collective(axes=cut.gathered, size_bytes=weights / (2 * blocks), count=2 * blocks)
    heads = padded_heads(grid)
    payloads = activation_payloads(
        cut,
        size,
        tokens=tokens / size(cut.gathered) * grid.act_bytes,
        d_model=grid.d_model,
        inward=query_columns(grid, heads) / across + key_value_columns(grid, across) + ffn.inputs / across,
        outward=heads * output_width(grid) / across + ffn.hidden / across,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Attended:
    """A forward pass without experts: seconds of compute and memory, and of what may hide what.

    ``projections_s`` is the compute under which ``looped_s`` of transfers may hide, ``loaded_s`` the reading of weights
    that are known before they are needed.
    """

    compute_s: Floats
    memory_s: Floats
    projections_s: Floats
    looped_s: Floats
    loaded_s: Floats
    transfers: LayerTransfers
    logits: Floats
    """Tokens of a sequence whose next one is chosen."""


def forward(
    grid: Grid, layout: str, attention: str, length: Floats, seen: Floats, experts: str = "", keys: Floats | None = None
) -> Cost:
    """One forward pass of ``length`` new tokens a sequence, each attending to ``seen`` keys of ``keys`` in the cache.

    :func:`attended` and, where there are some, experts over the axes ``experts``: :func:`together`.
    """
    routed = expert_cost(grid, layout, experts, length) if np.any(grid.expert_layers) else None
    return together(grid, attended(grid, layout, attention, length, seen, keys), routed)


def attended(
    grid: Grid,
    layout: str,
    attention: str,
    length: Floats,
    seen: Floats,
    keys: Floats | None = None,
    logits: Floats | None = None,
) -> Attended:
    """A forward pass of all but experts, ``length`` new tokens a sequence that attend to ``seen`` keys each.

    Compute: 2·T·W of the chip's part W of the projections and 4·T·seen·H·D over the attention shards, at the
    matmul's efficiency; 2·B·V·E/n of the logits of one token a sequence, or of ``logits``, at the end and at
    ``exit_heads`` exits. Memory: weights once
    (gathered weights are written and read, N times the chip's part), the cache of B·seen tokens once, the scores
    ``score_passes`` times. Communication: :func:`layer_transfers` and :func:`attention_transfers`.
    """
    chips = size_of(grid, "xyz")
    logits = (np.ones(1) if logits is None else logits) * (1 + grid.exit_heads)
    shards = attention_shards(grid, layout, attention)
    gathered = size_of(grid, LAYOUTS[layout].gathered)
    tokens = grid.batch * length
    heads = padded_heads(grid)
    ffn, absorbed = dense_columns(grid), absorbs(grid, length, seen if keys is None else keys)
    weights = attention_on_chip(grid, layout) + ffn.params / chips

    inputs = grid.d_model / size_of(grid, LAYOUTS[layout].embed)
    rate = grid.peak * grid.matmul_share * matmul_efficiency(grid, inputs)
    projections_s = 2 * tokens * weights / rate
    pairs = tokens * seen * heads / (shards.batch * shards.heads * shards.positions)
    widths = query_width(grid, absorbed) + value_width(grid, absorbed)
    attention_rate = grid.stream_peak * grid.matmul_efficiency * grid.attention_matmul
    attention_s = 2 * pairs * widths / attention_rate
    logits_s = 2 * grid.batch * logits * grid.vocab * grid.d_model / chips / (rate * (grid.head_peak / grid.peak))

    stream = grid.hbm_bytes_per_s * grid.hbm_efficiency
    copies = np.where(gathered > 1, 2 * gathered, 1.0)
    loaded = weights * grid.weight_bytes * copies / grid.weight_stream
    cached = shards.kv_elements(grid, grid.batch * seen) * grid.kv_bytes / grid.cache_efficiency
    scores = grid.score_passes * pairs * grid.act_bytes
    # Every matmul reads its input and writes its output; XLA fuses the operations between them.
    across = size_of(grid, LAYOUTS[layout].ffn)
    passed = 2 * inputs + (heads * (grid.head_dim + output_width(grid)) + ffn.inputs + ffn.hidden) / across
    vectors = tokens / gathered * passed * np.where(grid.serial, 2.0, 1.0) * grid.act_bytes * grid.vector_passes
    if np.any(grid.latent):
        projections_s = projections_s + 2 * made_again(grid, shards, length, seen, absorbed) / rate
        made = expanded_elements(grid, shards, seen, absorbed)
        vectors = vectors + 2 * made * grid.act_bytes * grid.vector_passes
    tables = grid.vocab * grid.d_model * grid.head_bytes / chips * (1 + grid.exit_heads)

    all_to_alls = attention_transfers(grid, layout, shards, length, absorbed)
    projections = layer_transfers(grid, layout, tokens)
    return Attended(
        compute_s=grid.layers * (projections_s + attention_s) + logits_s,
        memory_s=(grid.layers * (loaded + cached + scores + vectors) + tables) / stream,
        projections_s=grid.layers * projections_s,
        looped_s=grid.layers * projections.transfer_s,
        loaded_s=grid.layers * loaded / stream,
        transfers=(projections + all_to_alls).times(grid.layers),
        logits=logits,
    )


def together(grid: Grid, dense: Attended, routed: ExpertCost | None) -> Cost:
    """A forward pass with its layers' experts: a loop hides loop_hidden of the projections' transfer under compute left
    for it, and ``prefetch`` of what is left, and of fixed costs, runs under the reading of weights.

    Which of the experts' weights are read is only known after the router, so nothing fetches those ahead, and no loop
    hides what they send.
    """
    compute_s, memory_s, transfers = dense.compute_s, dense.memory_s, dense.transfers
    fixed_s = grid.layers * grid.layer_s
    if routed is not None:
        compute_s = compute_s + grid.expert_layers * routed.compute_s
        moved = routed.weights_bytes / grid.weight_stream + routed.row_bytes * grid.vector_passes
        memory_s = memory_s + grid.expert_layers * moved / (grid.hbm_bytes_per_s * grid.hbm_efficiency)
        transfers = transfers + routed.transfers.times(grid.expert_layers)
        fixed_s = fixed_s + grid.expert_layers * grid.routing_s
    # Compute that already overlaps memory time cannot also hide communication.
    under_memory = roofline_overlap(grid, compute_s, memory_s)
    spare = np.minimum(dense.projections_s, compute_s - under_memory)
    hidden = np.where(grid.looped, np.minimum(grid.loop_hidden * dense.looped_s, spare), 0.0)
    # A compiler that fetches the next weights ahead does so while the chip waits for others, or starts a layer.
    waiting = transfers.total_s - hidden + fixed_s
    fetched = grid.prefetch * np.minimum(waiting, np.maximum(dense.loaded_s - under_memory, 0.0))
    sampled = grid.sampling_s_per_logit * grid.batch * dense.logits * grid.vocab / size_of(grid, "xyz")
    return Cost(
        compute_s=compute_s,
        memory_s=memory_s,
        communication_s=transfers.total_s,
        overhead_s=fixed_s + grid.step_s + sampled,
        overlapped_s=under_memory + hidden + fetched,
    )


def weights_on_chip(grid: Grid, layout: str) -> Floats:
    """Elements of a layer's matrices on a chip, as a mean over layers: experts lie 1/n on each, however they are split.

    The router is on every chip.
    """
    chips = size_of(grid, "xyz")
    found = attention_on_chip(grid, layout) + dense_columns(grid).params / chips
    if not np.any(grid.expert_layers):
        return found
    routed = grid.num_experts * (grid.expert_params / chips + grid.d_model)
    return found + grid.expert_layers / grid.layers * routed
