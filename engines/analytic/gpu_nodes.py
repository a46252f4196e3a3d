"""Forward passes on GPU nodes: 1D tensor parallelism × pipeline parallelism, as FasterTransformer runs them.

Attention may be data-parallel over groups of a stage's ranks, and experts be spread over them (:mod:`gpu_ranks`).

T = tokens of a micro-batch; E, F, H, K, D as in :mod:`engines.core.model`; t and p the tensor and pipeline degrees; a
and w the bytes of an activation and of a weight.
"""

from dataclasses import replace

import numpy as np

from engines.analytic.attention import absorbs, query_width, value_width
from engines.analytic.cost import Cost, matmul_efficiency, roofline_overlap
from engines.analytic.gpu_experts import expert_cost
from engines.analytic.gpu_links import all_reduce_s, hand_over_s
from engines.analytic.gpu_ranks import (
    Ranks,
    attention_columns,
    attention_weights,
    cached_elements,
    expanded_elements,
    made_again,
    reread,
)
from engines.analytic.grid import Bools, Floats, Grid

MICRO_BATCH_TOKENS = 2048
"""A micro-batch is halved while it has more tokens. Published times step at 2048 tokens, not at the code's 1024."""


def micro_batch(grid: Grid, length: Floats) -> Floats:
    """Sequences in a micro-batch: the largest of those asked for, else as FasterTransformer's getLocalBatchSize picks.

    Without a pipeline the whole batch. With one, the batch over the p stages where that is whole, then halved while
    it has more than 1024 tokens and stays whole.
    """
    size = np.where(grid.batch % grid.pipeline == 0, grid.batch / grid.pipeline, grid.batch)
    # The halvings wanted, and those possible: the power of two in the size (its lowest set bit).
    wanted = np.ceil(np.log2(np.maximum(size * length / MICRO_BATCH_TOKENS, 1.0)))
    whole = size.astype(np.int64)
    possible = np.log2((whole & -whole).astype(np.float64))
    open_ = np.where(grid.pipeline > 1, size / 2 ** np.minimum(wanted, possible), grid.batch)
    return np.where(grid.micro_batches > 0, np.ceil(grid.batch / np.maximum(grid.micro_batches, 1.0)), open_)


def vector_elements(grid: Grid) -> Floats:
    """Elements of activations that cross a rank's HBM for one token in one dense layer that all ranks share.

    Each matmul reads its input and writes its output: 4·E + ((H + 2K)·D + H·D + g·F + F)/t, g = 2 where gated, else 1.
    Kernels between them read and write once more: bias and transpose of q, k, v, the activation (g·F in, F out), and
    add-bias-residual-norm, which reads two and writes two vectors of E, twice where the block is serial.
    """
    ranks = Ranks(data=np.ones(1), experts=np.ones(1))
    return attention_elements(grid, ranks, np.zeros(1, dtype=bool)) + _block_elements(grid) + hidden_elements(grid)


def _block_elements(grid: Grid) -> Floats:
    """Elements of E that half a layer reads and writes: 2·E of matmuls, the norm's over ``norm_ranks``."""
    return 2 * grid.d_model * (1 + np.where(grid.serial, 2.0, 1.0) / grid.norm_ranks)


def attention_elements(grid: Grid, ranks: Ranks, absorbed: Bools) -> Floats:
    """Attention's part of :func:`vector_elements`."""
    qkv, out = attention_columns(grid, ranks, absorbed)
    return _block_elements(grid) + 3 * qkv + out


def hidden_elements(grid: Grid) -> Floats:
    """Hidden columns of :func:`vector_elements`, of a dense layer over all ranks."""
    return 2 * (grid.ffn_inputs + grid.ffn_hidden) / grid.tensor


def forward(
    grid: Grid, length: Floats, seen: Floats, prefill: bool, ranks: Ranks | None = None, keys: Floats | None = None
) -> Cost:
    """One forward pass of ``length`` new tokens a sequence, each attending to ``seen`` keys of ``keys`` in the cache.

    m = B/micro micro-batches pass p stages, so (m + p − 1) passes of one micro-batch through layers/p layers. A stage:
    compute 2·T·W/t and 4·T·seen·H·D/t a layer; memory its weights once, its cache (:func:`reread`),
    :func:`vector_elements` and, in a prefill that materialises them, the scores; two all-reduces of T·E a layer (one
    where the block is parallel); and T·E/t sent to the next stage by each rank. Logits and sampling once for the batch,
    on the last stage. Where the host takes longer to start kernels than the device to run them, its time counts.

    With data-parallel attention a group of t/data ranks attends to its own sequences, and its all-reduce is theirs;
    what follows attention gathers all tokens or sends them (:func:`engines.analytic.gpu_experts.expert_cost`).
    """
    ranks = Ranks(data=np.ones(1), experts=np.ones(1)) if ranks is None else ranks
    micro = micro_batch(grid, length)
    turns = np.ceil(grid.batch / micro) + grid.pipeline - 1
    layers = np.where(grid.pipeline > 1, np.ceil(grid.layers / grid.pipeline), grid.layers)
    dense, mixed = grid.dense_layers / grid.layers, grid.expert_layers / grid.layers
    sequences = np.ceil(micro / ranks.data)
    tokens, of_group = micro * length, sequences * length
    absorbed = absorbs(grid, length, seen if keys is None else keys)

    rate = grid.peak * grid.matmul_share * matmul_efficiency(grid, grid.d_model)
    heads = grid.heads / ranks.attention(grid)
    on_rank = attention_weights(grid, ranks) + mixed * grid.shared_params / ranks.attention(grid)
    attention_rate = grid.stream_peak * grid.matmul_efficiency * grid.attention_matmul
    widths = query_width(grid, absorbed) + value_width(grid, absorbed)
    attention_s = 2 * of_group * seen * heads * widths / attention_rate
    flops = 2 * of_group * on_rank + 2 * tokens * dense * grid.ffn_active_params / grid.tensor

    stream = grid.hbm_bytes_per_s * grid.hbm_efficiency
    cached = cached_elements(grid, ranks, sequences * seen) * grid.kv_bytes / grid.cache_efficiency
    shared_columns = mixed * 2 * (grid.shared_inputs + grid.shared_hidden) / ranks.attention(grid)
    elements = of_group * (attention_elements(grid, ranks, absorbed) + shared_columns)
    elements = elements + dense * tokens * (_block_elements(grid) + hidden_elements(grid))
    if np.any(grid.latent):
        flops = flops + 2 * made_again(grid, ranks, sequences, seen - length, absorbed)
        elements = elements + 2 * expanded_elements(grid, ranks, sequences, seen, absorbed)
    weights = (on_rank + dense * grid.ffn_params / grid.tensor) * grid.weight_bytes

    transfer, start = all_reduce_s(grid, tokens * grid.d_model * grid.act_bytes)
    of_attention = all_reduce_s(grid, of_group * grid.d_model * grid.act_bytes, ranks.attention(grid))
    attended, attention_start = sum(of_attention, np.zeros(1)), of_attention[1]
    # Split norms put a reduce-scatter and an all-gather in the place of an all-reduce: the same bytes, one start more.
    starts = np.where(grid.norm_ranks > 1, 2.0, 1.0)
    attended, start = attended + (starts - 1) * attention_start, start * starts
    # A parallel block sums both halves at once: in one group by one all-reduce.
    own = np.where(grid.serial | (ranks.data > 1), attended, 0.0)
    sent_s = own + dense * (transfer + start)
    fixed_s = layers * grid.layer_s
    if np.any(grid.expert_layers):
        routed = expert_cost(grid, ranks, tokens, of_group)
        flops = flops + mixed * routed.flops
        weights = weights + mixed * routed.weights_bytes
        elements = elements + mixed * (of_group * _block_elements(grid) + routed.row_elements)
        sent_s = sent_s + mixed * routed.communication_s
        fixed_s = fixed_s + layers * mixed * grid.routing_s
    compute_s = layers * (flops / rate + attention_s)
    moved = elements * grid.act_bytes * grid.vector_passes
    if prefill:
        moved = moved + cached + grid.score_passes * of_group * seen * heads * grid.act_bytes
    else:
        moved = moved + cached * reread(grid, ranks)
    weights_s = layers * weights / (stream * grid.weight_stream)
    memory_s = weights_s + layers * moved / stream
    stage = Cost(
        compute_s=compute_s,
        memory_s=memory_s,
        communication_s=layers * sent_s + hand_over_s(grid, tokens),
        overhead_s=fixed_s,
        # Kernels take turns: a matmul streams its weights while it multiplies, the others only move memory.
        overlapped_s=roofline_overlap(grid, compute_s, weights_s),
    )
    tables = 1 + grid.exit_heads
    last = tables * (np.ones(1) if prefill else grid.pass_tokens)
    logits = np.where(prefill & (grid.all_logits > 0), length, last) * grid.batch * grid.vocab
    logits_s = 2 * logits * grid.d_model / grid.tensor / (rate * (grid.head_peak / grid.peak))
    table_s = tables * grid.vocab * grid.d_model * grid.head_bytes / grid.tensor / stream
    head = Cost(
        compute_s=logits_s,
        memory_s=table_s,
        communication_s=np.zeros(1),
        # Groups of data-parallel attention sample for their own sequences.
        overhead_s=grid.step_s + grid.sampling_s_per_logit * np.ceil(grid.batch / ranks.data) * last * grid.vocab,
        overlapped_s=roofline_overlap(grid, logits_s, table_s),
    )
    device = stage.times(turns) + head
    host_s = turns * layers * (grid.host_prefill_layer_s if prefill else grid.host_layer_s)
    return replace(
        device,
        overhead_s=device.overhead_s + host_s,
        overlapped_s=device.overlapped_s + np.minimum(host_s, device.latency_s),
    )
