"""Bytes that a point takes of one chip's HBM."""

from dataclasses import dataclass

import numpy as np

from engines.analytic import gpu_nodes, tpu_torus
from engines.analytic.grid import Bools, Floats, Grid
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


def on_torus(grid: Grid, layout: str, attention: str, length: Floats) -> Memory:
    """TPU: weights/n with heads padded, the tables of embedding and head; the cache of all tokens, as attention splits.

    Activations of a pass of ``length`` tokens a sequence, at the fullest of a layer's four moments: input projection
    (its input, its output [q | k | v | F inputs], its gathered weights), attention (that, the scores, the result),
    gating (that and [attention out | F]), output projection (that, its output, its gathered weights); beside them the
    residual and float32 logits. A gathered layout holds a whole matrix, where it loops a few shards of one: some
    fit only so (Pope et al. 2022, section 3.5).
    """
    chips = tpu_torus.size_of(grid, "xyz")
    cut = LAYOUTS[layout]
    gathered = tpu_torus.size_of(grid, cut.gathered)
    shards = tpu_torus.attention_shards(grid, layout, attention)
    tables = grid.vocab * grid.d_model * grid.tables
    context = grid.input_len + grid.output_len
    tokens = grid.batch * length
    across = tpu_torus.size_of(grid, cut.ffn)
    query = tpu_torus.padded_heads(grid) * grid.head_dim
    into = query + 2 * grid.kv_heads * grid.head_dim + grid.ffn_inputs
    out = query + grid.ffn_hidden
    inputs = grid.d_model / tpu_torus.size_of(grid, cut.embed)
    held = (
        np.where(grid.looped, np.minimum(grid.loop_shards, gathered), gathered)
        / chips
        * grid.weight_bytes
        * grid.d_model
        * (gathered > 1)
    )
    rows = tokens / gathered * grid.act_bytes
    scores = tokens * np.where(length > 1, grid.input_len, context) * tpu_torus.padded_heads(grid)
    moments = (
        rows * (inputs + into / across) + held * into,
        rows * (into + query) / across + scores / (shards.batch * shards.heads) * grid.act_bytes,
        rows * (into + out) / across,
        rows * (inputs + out / across) + held * out,
    )
    fullest = np.maximum.reduce(np.broadcast_arrays(*moments))
    residual = rows * grid.d_model / (chips / gathered)
    return Memory(
        weights_bytes=grid.layers * tpu_torus.weights_on_chip(grid, layout) * grid.weight_bytes
        + tables / chips * grid.head_bytes,
        kv_cache_bytes=grid.layers * shards.kv_elements(grid, grid.batch * context) * grid.kv_bytes,
        activations_bytes=fullest + residual + grid.batch * grid.vocab / chips * 4,
        usable_bytes=grid.hbm_bytes * grid.hbm_usable,
    )


def on_nodes(grid: Grid, length: Floats) -> Memory:
    """GPU, after FasterTransformer's buffers: weights/(t·p), and both the input and the output table on every rank.

    The cache of all tokens of the batch over t ranks and p stages; where it grows, a prefill has the prompts' alone.
    Activations of a pass of ``length`` tokens, of which at most ``prefill_tokens`` are in memory at once: in, out,
    normed and residual [T, E]; of a micro-batch [q | k | v] and their transposes, attention's result and the hidden
    [T, F] over t; the scores [B, H/t, L, L] where they are materialised; and float32 logits of the batch twice, of all
    positions where a runtime makes those.
    """
    qkv = (grid.heads + 2 * grid.kv_heads) * grid.head_dim
    weights = (qkv + grid.heads * grid.head_dim) * grid.d_model + grid.ffn_params
    layers = np.ceil(grid.layers / grid.pipeline)
    tables = grid.vocab * grid.d_model * 2
    reading = np.where(length > 1, grid.cache_grows, 0.0) > 0
    context = grid.input_len + np.where(reading, 0.0, grid.output_len)
    most = np.maximum(grid.prefill_tokens, length)
    tokens = np.minimum(gpu_nodes.micro_batch(grid, length) * length, most)
    kv_heads = np.maximum(np.ceil(grid.kv_heads / grid.tensor), 1.0)
    hidden = (2 * qkv + grid.heads * grid.head_dim + grid.ffn_inputs) / grid.tensor
    scores = np.where(grid.score_passes > 0, tokens * length * grid.heads / grid.tensor, 0.0)
    residual = 4 * np.minimum(grid.batch * length, most) * grid.d_model
    logits = grid.batch * grid.vocab * np.where(grid.all_logits > 0, length, 1.0)
    return Memory(
        weights_bytes=layers * weights / grid.tensor * grid.weight_bytes + tables * grid.head_bytes,
        kv_cache_bytes=layers * 2 * kv_heads * grid.head_dim * grid.batch * context * grid.kv_bytes,
        activations_bytes=(residual + tokens * hidden + scores) * grid.act_bytes + 2 * 4 * logits,
        usable_bytes=grid.hbm_bytes * grid.hbm_usable,
    )
