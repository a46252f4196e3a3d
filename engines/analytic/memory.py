"""Bytes that a point takes of one chip's HBM."""

from dataclasses import dataclass, replace

import numpy as np

from engines.analytic import gpu_nodes, gpu_ranks, torus_attention, torus_experts, tpu_torus
from engines.analytic.attention import absorbs, cached_width, held, query_width, value_width
from engines.analytic.expert_load import busiest_rows
from engines.analytic.grid import Bools, Floats, Grid
from engines.analytic.offload_rates import held_layers
from engines.analytic.torus_links import size_of
from engines.core.layout import LAYOUTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one chip, arrays [points]."""

    weights_bytes: Floats
    kv_cache_bytes: Floats
    activations_bytes: Floats
    usable_bytes: Floats

    @property
    def peak_hbm_bytes(self) -> Floats:
        """All three at once."""
        return self.weights_bytes + self.kv_cache_bytes + self.activations_bytes

    @property
    def fits(self) -> Bools:
        """Whether it fits in the HBM that the runtime leaves."""
        return self.peak_hbm_bytes <= self.usable_bytes

    def masked(self, runs: Bools) -> "Memory":
        """0 bytes where ``runs`` is false."""
        return Memory(
            weights_bytes=self.weights_bytes * runs,
            kv_cache_bytes=self.kv_cache_bytes * runs,
            activations_bytes=self.activations_bytes * runs,
            usable_bytes=self.usable_bytes,
        )

    def where(self, chosen: Bools, other: "Memory") -> "Memory":
        """self where ``chosen``, ``other`` elsewhere."""
        return Memory(
            weights_bytes=np.where(chosen, self.weights_bytes, other.weights_bytes),
            kv_cache_bytes=np.where(chosen, self.kv_cache_bytes, other.kv_cache_bytes),
            activations_bytes=np.where(chosen, self.activations_bytes, other.activations_bytes),
            usable_bytes=np.where(chosen, self.usable_bytes, other.usable_bytes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TorusMemory:
    """Bytes of one chip without its experts' activations, and those of a layer at its ``fullest`` moment so far."""

    memory: Memory
    fullest: Floats

    def with_experts(self, routed: torus_experts.ExpertCost | None) -> Memory:
        """With the moment at which experts run."""
        if routed is None:
            return self.memory
        more = np.maximum(routed.held_bytes - self.fullest, 0.0)
        return replace(self.memory, activations_bytes=self.memory.activations_bytes + more)


def on_torus(grid: Grid, layout: str, attention: str, length: Floats) -> TorusMemory:
    """TPU: weights/n with heads padded, the tables of embedding and head; the cache of all tokens, as attention splits.

    Activations of a pass of ``length`` tokens a sequence, at the fullest of a layer's moments: input projection
    (its input, its output [q | k | v | F inputs], its gathered weights), attention (that, the scores, the result),
    gating (that and [attention out | F]), output projection (that, its output, its gathered weights), and experts
    (:meth:`TorusMemory.with_experts`); beside them the residual and float32 logits. A gathered layout holds a whole
    matrix, where it loops a few shards of one: some fit only so (Pope et al. 2022, section 3.5).

    A layer with a window keeps that many tokens of a sequence. Every chip that attends to a sequence has its latent
    vectors whole, and every chip a router.
    """
    chips = size_of(grid, "xyz")
    cut = LAYOUTS[layout]
    gathered = size_of(grid, cut.gathered)
    shards = torus_attention.attention_shards(grid, layout, attention)
    tables = grid.vocab * grid.d_model * grid.tables
    context = grid.input_len + grid.output_len + grid.pass_tokens - 1
    absorbed = absorbs(grid, length, np.where(length > 1, length, context))
    tokens = grid.batch * length
    across = size_of(grid, cut.ffn)
    heads = torus_attention.padded_heads(grid)
    query = heads * query_width(grid, absorbed)
    key_value = np.where(grid.latent, cached_width(grid), 2 * grid.kv_heads * grid.head_dim)
    widest = np.maximum(grid.ffn_inputs * (grid.dense_layers > 0), grid.shared_inputs)
    into = query + key_value + widest
    out = heads * value_width(grid, absorbed) + np.where(grid.dense_layers > 0, grid.ffn_hidden, grid.shared_hidden)
    inputs = grid.d_model / size_of(grid, cut.embed)
    held_weights = (
        np.where(grid.looped, np.minimum(grid.loop_shards, gathered), gathered)
        / chips
        * grid.weight_bytes
        * grid.d_model
        * (gathered > 1)
    )
    rows = tokens / gathered * grid.act_bytes
    seen = np.where(length > 1, grid.input_len, context)
    seen = np.where(grid.window_layers == grid.layers, np.minimum(seen, grid.window), seen)
    scores = tokens * seen * heads / (shards.batch * shards.heads * shards.positions)
    # Latent vectors are expanded for a layer at a time.
    expanded = torus_attention.expanded_elements(grid, shards, seen, absorbed) * grid.act_bytes
    moments = [
        rows * (inputs + into / across) + held_weights * into,
        rows * (into + query) / across + scores * grid.act_bytes + expanded,
        rows * (into + out) / across,
        rows * (inputs + out / across) + held_weights * out,
    ]
    fullest = np.maximum.reduce(np.broadcast_arrays(*moments))
    residual = rows * grid.d_model / (chips / gathered)
    whole = Memory(
        weights_bytes=held_layers(grid.layers, grid.first_layers, grid.offloads)
        * tpu_torus.weights_on_chip(grid, layout)
        * grid.weight_bytes
        + tables / chips * grid.head_bytes,
        kv_cache_bytes=held_layers(grid.layers, grid.first_layers, grid.offloads_kv)
        * shards.kv_elements(grid, grid.batch * held(grid, context))
        * grid.kv_bytes,
        activations_bytes=fullest + residual + grid.batch * _judged(grid, length) * grid.vocab / chips * 4,
        usable_bytes=grid.hbm_bytes * grid.hbm_usable,
    )
    return TorusMemory(memory=whole, fullest=fullest)


def on_nodes(grid: Grid, length: Floats, ranks: gpu_ranks.Ranks | None = None) -> Memory:
    """GPU, after FasterTransformer's buffers: weights/(t·p), and both the input and the output table on every rank.

    The cache of all tokens of the batch over t ranks and p stages; where it grows, a prefill has the prompts' alone.
    Activations of a pass of ``length`` tokens, of which at most ``prefill_tokens`` are in memory at once: in, out,
    normed and residual [T, E]; of a micro-batch [q | k | v] and their transposes, attention's result and the hidden
    [T, F] over t; the scores [B, H/t, L, L] where they are materialised; and float32 logits of the batch twice, of all
    positions where a runtime makes those. A group of data-parallel attention holds the cache of its own sequences and
    all of attention's matrices; experts lie 1/t on each rank, however they are split.
    """
    ranks = gpu_ranks.Ranks(data=np.ones(1), experts=np.ones(1)) if ranks is None else ranks
    shared = ranks.attention(grid)
    layers = np.ceil(grid.layers / grid.pipeline)
    tables = grid.vocab * grid.d_model * 2
    reading = np.where(length > grid.pass_tokens, grid.cache_grows, 0.0) > 0
    context = grid.input_len + np.where(reading, 0.0, grid.output_len + grid.pass_tokens - 1)
    absorbed = absorbs(grid, length, np.where(length > 1, length, context))
    most = np.maximum(grid.prefill_tokens, length)
    tokens = np.minimum(gpu_nodes.micro_batch(grid, length) * length, most)
    of_group = np.ceil(tokens / ranks.data)
    qkv, out = gpu_ranks.attention_columns(grid, ranks, absorbed)
    widest = grid.ffn_inputs * (grid.dense_layers > 0) / grid.tensor
    hidden = of_group * (2 * qkv + out) + tokens * widest
    if np.any(grid.expert_layers):
        rows = busiest_rows(grid, tokens, ranks.experts)
        hidden = hidden + rows * (2 * grid.d_model + grid.expert_inputs / ranks.inside(grid))
        hidden = hidden + of_group * grid.shared_inputs / shared
    sequences = np.ceil(gpu_nodes.micro_batch(grid, length) / ranks.data)
    hidden = hidden + gpu_ranks.expanded_elements(grid, ranks, sequences, context, absorbed)
    scores = np.where(grid.score_passes > 0, of_group * length * grid.heads / shared, 0.0)
    # In and out of matmuls are whole, the residual and what is normed lie on the ranks that split their tokens.
    residual = (2 + 2 / grid.norm_ranks) * np.minimum(grid.batch * length, most) * grid.d_model
    logits = grid.batch * grid.vocab * np.where(grid.all_logits > 0, length, _judged(grid, length))
    kept = np.ceil(grid.batch / ranks.data) * held(grid, context)
    return Memory(
        weights_bytes=held_layers(layers, grid.first_layers, grid.offloads)
        * gpu_ranks.weights_on_rank(grid, ranks)
        * grid.weight_bytes
        + tables * grid.head_bytes,
        kv_cache_bytes=held_layers(layers, grid.first_layers, grid.offloads_kv)
        * gpu_ranks.cached_elements(grid, ranks, kept)
        * grid.kv_bytes,
        activations_bytes=(residual + hidden + scores) * grid.act_bytes + 2 * 4 * logits,
        usable_bytes=grid.hbm_bytes * grid.hbm_usable,
    )


def _judged(grid: Grid, length: Floats) -> Floats:
    """Tokens of a sequence whose logits a pass of ``length`` makes: the last, or all that it verifies."""
    return np.where(length > grid.pass_tokens, 1.0, grid.pass_tokens)
