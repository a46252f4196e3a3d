"""Forward passes on GPU nodes: 1D tensor parallelism × pipeline parallelism, as FasterTransformer runs them.

T = tokens of a micro-batch; E, F, H, K, D as in :mod:`engines.core.model`; t and p the tensor and pipeline degrees; a
and w the bytes of an activation and of a weight.
"""

import numpy as np

from engines.analytic.cost import Cost, matmul_efficiency, roofline_overlap
from engines.analytic.grid import Floats, Grid

SCORE_PASSES = 4
"""Times that attention scores cross HBM: written and read, before and after the softmax."""
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


def forward(grid: Grid, length: Floats, context: Floats) -> Cost:
    """One forward pass of ``length`` new tokens a sequence, each attending to ``context`` keys.

    m = B/micro micro-batches pass p stages, so (m + p − 1) passes of one micro-batch through layers/p layers. A stage:
    compute 2·T·W/t and 4·T·context·H·D/t a layer; memory its weights once, its cache, the scores four times and
    :func:`vector_elements`; two all-reduces of T·E a layer (one where the block is parallel); and T·E/t sent to the
    next stage by each rank. Logits and sampling once for the batch, on the last stage.
    """
    micro = micro_batch(grid, length)
    turns = np.ceil(grid.batch / micro) + grid.pipeline - 1
    layers = np.ceil(grid.layers / grid.pipeline)
    tokens = micro * length
    qkv = (grid.heads + 2 * grid.kv_heads) * grid.head_dim
    weights = (qkv + grid.heads * grid.head_dim) * grid.d_model + grid.ffn_params

    rate = grid.peak * matmul_efficiency(grid, grid.d_model)
    heads = grid.heads / grid.tensor
    active = weights - (grid.ffn_params - grid.ffn_active_params)
    compute_s = layers * 2 * tokens * active / grid.tensor / rate
    attention_rate = grid.stream_peak * grid.matmul_efficiency
    compute_s = compute_s + layers * 4 * tokens * context * heads * grid.head_dim / attention_rate

    stream = grid.hbm_bytes_per_s * grid.hbm_efficiency
    loaded = weights * grid.weight_bytes / grid.tensor
    kv_heads = np.maximum(np.ceil(grid.kv_heads / grid.tensor), 1.0)
    cached = 2 * kv_heads * grid.head_dim * micro * context * grid.kv_bytes
    scores = SCORE_PASSES * tokens * context * heads * grid.act_bytes
    passed = tokens * vector_elements(grid) * grid.act_bytes
    weights_s = layers * loaded / stream
    memory_s = weights_s + layers * (cached + scores + passed) / stream

    transfer, start = all_reduce_s(grid, tokens * grid.d_model * grid.act_bytes)
    reduces = layers * np.where(grid.serial, 2.0, 1.0)
    # A stage of eight or more ranks has the next one in another node; the NICs of a node send in parallel.
    stage_bytes = tokens * grid.d_model * grid.act_bytes / np.minimum(grid.tensor, grid.node_size)
    stage_send_s = np.where(
        grid.pipeline > 1,
        stage_bytes / (grid.network_bytes_per_s * grid.network_efficiency) + grid.stage_s,
        0.0,
    )
    stage = Cost(
        compute_s=compute_s,
        memory_s=memory_s,
        communication_s=reduces * (transfer + start) + stage_send_s,
        overhead_s=layers * grid.layer_s,
        # Kernels take turns: a matmul streams its weights while it multiplies, the others only move memory.
        overlapped_s=roofline_overlap(grid, compute_s, weights_s),
    )
    logits_s = 2 * grid.batch * grid.vocab * grid.d_model / grid.tensor / (rate * (grid.head_peak / grid.peak))
    table_s = grid.vocab * grid.d_model * grid.head_bytes / grid.tensor / stream
    head = Cost(
        compute_s=logits_s,
        memory_s=table_s,
        communication_s=np.zeros(1),
        overhead_s=grid.step_s + grid.sampling_s_per_logit * grid.batch * grid.vocab,
        overlapped_s=roofline_overlap(grid, logits_s, table_s),
    )
    return stage.times(turns) + head
