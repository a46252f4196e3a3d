"""Forward passes on GPU nodes: 1D tensor parallelism × pipeline parallelism, as FasterTransformer runs them.

T = tokens of a micro-batch; E, F, H, K, D as in :mod:`engines.core.model`; t and p the tensor and pipeline degrees; a
and w the bytes of an activation and of a weight.
"""

from dataclasses import replace

import numpy as np

from engines.analytic.cost import Cost, matmul_efficiency, roofline_overlap
from engines.analytic.grid import Floats, Grid

MICRO_BATCH_TOKENS = 2048
"""A micro-batch is halved while it has more tokens. Published times step at 2048 tokens, not at the code's 1024."""


def micro_batch(grid: Grid, length: Floats) -> Floats:
    """Sequences in a micro-batch, as FasterTransformer's getLocalBatchSize picks them.

    Without a pipeline the whole batch. With one, the batch over the p stages where that is whole, then halved while
    it has more than 1024 tokens and stays whole.
    """
    size = np.where(grid.batch % grid.pipeline == 0, grid.batch / grid.pipeline, grid.batch)
    # The halvings wanted, and those possible: the power of two in the size (its lowest set bit).
    wanted = np.ceil(np.log2(np.maximum(size * length / MICRO_BATCH_TOKENS, 1.0)))
    whole = size.astype(np.int64)
    possible = np.log2((whole & -whole).astype(np.float64))
    return np.where(grid.pipeline > 1, size / 2 ** np.minimum(wanted, possible), grid.batch)


def nodes_of(grid: Grid) -> Floats:
    """Nodes that a tensor-parallel group spans."""
    return np.ceil(grid.tensor / grid.node_size)


def all_reduce_s(grid: Grid, size_bytes: Floats) -> tuple[Floats, Floats]:
    """All-reduce of ``size_bytes`` over the t ranks: (transfer, start) in seconds.

    A ring moves 2·(t − 1)/t of the tensor past every rank (Patarasuk and Yuan 2009): inside a node over the switch,
    across nodes over the network cards of all node_size ranks at once. It starts after collective_s and 2·(t − 1) hops
    inside a node, and network_collective_s more where it leaves it.
    """
    inside = grid.link_bytes_per_s * grid.link_efficiency
    across = grid.node_size * grid.network_bytes_per_s * grid.network_efficiency
    spans = nodes_of(grid) > 1
    transfer = 2 * (1 - 1 / grid.tensor) * size_bytes / np.where(spans, across, inside)
    inside_steps = 2 * (np.minimum(grid.tensor, grid.node_size) - 1)
    start = np.where(spans, grid.network_collective_s, 0.0) + np.where(
        grid.tensor > 1, grid.collective_s + grid.hop_s * inside_steps, 0.0
    )
    return transfer, start


def vector_elements(grid: Grid) -> Floats:
    """Elements of activations that cross a rank's HBM for one token in one layer.

    Each matmul reads its input and writes its output: 4·E + ((H + 2K)·D + H·D + g·F + F)/t, g = 2 where gated, else 1.
    Kernels between them read and write once more: bias and transpose of q, k, v, the activation (g·F in, F out), and
    add-bias-residual-norm, which reads two and writes two vectors of E, twice where the block is serial.
    """
    qkv = (grid.heads + 2 * grid.kv_heads) * grid.head_dim
    hidden = grid.ffn_inputs + grid.ffn_hidden
    split = 3 * qkv + grid.heads * grid.head_dim + 2 * hidden
    return 4 * grid.d_model * np.where(grid.serial, 3.0, 2.0) + split / grid.tensor


def reread(grid: Grid) -> Floats:
    """Times that a decode step reads a key/value head: 1 + kv_reread · (its query heads on this rank − 1)."""
    on_rank = np.maximum(np.ceil(grid.kv_heads / grid.tensor), 1.0)
    return 1 + grid.kv_reread * np.maximum(grid.heads / grid.tensor / on_rank - 1, 0.0)


def forward(grid: Grid, length: Floats, context: Floats, prefill: bool) -> Cost:
    """One forward pass of ``length`` new tokens a sequence, each attending to ``context`` keys.

    m = B/micro micro-batches pass p stages, so (m + p − 1) passes of one micro-batch through layers/p layers. A stage:
    compute 2·T·W/t and 4·T·context·H·D/t a layer; memory its weights once, its cache (:func:`reread`),
    :func:`vector_elements` and, in a prefill that materialises them, the scores; two all-reduces of T·E a layer (one
    where the block is parallel); and T·E/t sent to the next stage by each rank. Logits and sampling once for the batch,
    on the last stage. Where the host takes longer to start kernels than the device to run them, its time counts.
    """
    micro = micro_batch(grid, length)
    turns = np.ceil(grid.batch / micro) + grid.pipeline - 1
    layers = np.ceil(grid.layers / grid.pipeline)
    tokens = micro * length
    qkv = (grid.heads + 2 * grid.kv_heads) * grid.head_dim
    weights = (qkv + grid.heads * grid.head_dim) * grid.d_model + grid.ffn_params

    rate = grid.peak * grid.matmul_share * matmul_efficiency(grid, grid.d_model)
    heads = grid.heads / grid.tensor
    active = weights - (grid.ffn_params - grid.ffn_active_params)
    attention_rate = grid.stream_peak * grid.matmul_efficiency * grid.attention_matmul
    attention_s = 4 * tokens * context * heads * grid.head_dim / attention_rate
    compute_s = layers * (2 * tokens * active / grid.tensor / rate + attention_s)

    stream = grid.hbm_bytes_per_s * grid.hbm_efficiency
    kv_heads = np.maximum(np.ceil(grid.kv_heads / grid.tensor), 1.0)
    cached = 2 * kv_heads * grid.head_dim * micro * context * grid.kv_bytes / grid.cache_efficiency
    moved = tokens * vector_elements(grid) * grid.act_bytes * grid.vector_passes
    if prefill:
        moved = moved + cached + grid.score_passes * tokens * context * heads * grid.act_bytes
    else:
        moved = moved + cached * reread(grid)
    weights_s = layers * weights * grid.weight_bytes / grid.tensor / (stream * grid.weight_stream)
    memory_s = weights_s + layers * moved / stream

    transfer, start = all_reduce_s(grid, tokens * grid.d_model * grid.act_bytes)
    reduces = layers * np.where(grid.serial, 2.0, 1.0)
    stage = Cost(
        compute_s=compute_s,
        memory_s=memory_s,
        communication_s=reduces * (transfer + start) + hand_over_s(grid, tokens),
        overhead_s=layers * grid.layer_s,
        # Kernels take turns: a matmul streams its weights while it multiplies, the others only move memory.
        overlapped_s=roofline_overlap(grid, compute_s, weights_s),
    )
    logits = np.where(prefill & (grid.all_logits > 0), length, 1.0) * grid.batch * grid.vocab
    logits_s = 2 * logits * grid.d_model / grid.tensor / (rate * (grid.head_peak / grid.peak))
    table_s = grid.vocab * grid.d_model * grid.head_bytes / grid.tensor / stream
    head = Cost(
        compute_s=logits_s,
        memory_s=table_s,
        communication_s=np.zeros(1),
        overhead_s=grid.step_s + grid.sampling_s_per_logit * grid.batch * grid.vocab,
        overlapped_s=roofline_overlap(grid, logits_s, table_s),
    )
    device = stage.times(turns) + head
    host_s = turns * layers * (grid.host_prefill_layer_s if prefill else grid.host_layer_s)
    return replace(
        device,
        overhead_s=device.overhead_s + host_s,
        overlapped_s=device.overlapped_s + np.minimum(host_s, device.latency_s),
    )


def hand_over_s(grid: Grid, tokens: Floats) -> Floats:
    """Seconds in which a stage hands T·E to the next: over the switch where all are in one node, else the network.

    The ranks of a stage send in parallel, each through its own card.
    """
    inside = grid.link_bytes_per_s * grid.link_efficiency
    across = grid.network_bytes_per_s * grid.network_efficiency
    rate = np.where(grid.tensor * grid.pipeline > grid.node_size, across, inside)
    sent = tokens * grid.d_model * grid.act_bytes / np.minimum(grid.tensor, grid.node_size)
    return np.where(grid.pipeline > 1, sent / np.where(grid.pipeline > 1, rate, 1.0) + grid.stage_s, 0.0)
