"""Which GPUs of a pipeline stage share what, and what attention's matrices and cache are on one of them.

A stage has t ranks. They are ``data`` groups, each of which attends to its own sequences with t/data ranks (as
DeepSeek, arXiv 2412.19437, section 3.4, and vLLM serve latent attention, whose cache no heads split), and ``experts``
groups with N/experts experts each. Feed-forwards of all tokens are cut over all t.
"""

from dataclasses import dataclass

import numpy as np

from engines.analytic.attention import cached_width, output_width, query_columns, query_width, up_params, value_width
from engines.analytic.grid import Bools, Floats, Grid

LATENT_QUERY_HEADS = 64.0
"""Query heads that read a latent vector together (the rows of a tile of FlashMLA and of FlashInfer's kernel)."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Degrees of a stage, arrays [points]."""

    data: Floats
    experts: Floats

    def attention(self, grid: Grid) -> Floats:
        """Ranks that share the attention of a sequence."""
        return grid.tensor / self.data

    def inside(self, grid: Grid) -> Floats:
        """Ranks that share an expert."""
        return grid.tensor / self.experts

    def possible(self, grid: Grid) -> Bools:
        """Whether sequences, heads, experts and their columns split so; a degree of 1 always does."""
        attention, inside = self.attention(grid), self.inside(grid)
        groups = _whole(attention) & (self.data <= grid.batch)
        heads = (self.data == 1) | _whole(grid.heads / attention)
        experts = _whole(inside) & _whole(grid.num_experts / self.experts) & _whole(grid.expert_hidden / inside)
        return np.asarray(groups & heads & np.where(grid.num_experts > 0, experts, self.experts == 1))


def _whole(parts: Floats) -> Bools:
    return np.asarray(parts == np.floor(parts))


def attention_weights(grid: Grid, ranks: Ranks) -> Floats:
    """Elements of one layer's attention matrices on a rank: heads are split, those down to latent vectors are whole."""
    shared = ranks.attention(grid)
    qkv = (grid.heads + 2 * grid.kv_heads) * grid.head_dim
    by_head = (qkv + grid.heads * grid.head_dim) * grid.d_model / shared
    if not np.any(grid.latent):
        return by_head
    whole = cached_width(grid) + grid.q_latent
    queries = np.where(grid.q_latent > 0, 0.0, grid.d_model * query_columns(grid, grid.heads))
    cut = queries + up_params(grid, grid.heads) + grid.d_model * grid.heads * grid.value_dim
    return np.where(grid.latent, grid.d_model * whole + cut / shared, by_head)


def weights_on_rank(grid: Grid, ranks: Ranks) -> Floats:
    """Elements of a layer's matrices on a rank, as a mean over layers: experts lie 1/t on each, the router on all."""
    dense, mixed = grid.dense_layers / grid.layers, grid.expert_layers / grid.layers
    weights = attention_weights(grid, ranks) + dense * grid.ffn_params / grid.tensor
    experts = grid.num_experts * (grid.expert_params / grid.tensor + grid.d_model)
    return weights + mixed * (experts + grid.shared_params / ranks.attention(grid))


def cached_elements(grid: Grid, ranks: Ranks, tokens: Floats) -> Floats:
    """Elements of one layer's cache on a rank for ``tokens`` of its sequences; latent vectors have no heads."""
    kv_heads = np.maximum(np.ceil(grid.kv_heads / ranks.attention(grid)), 1.0)
    return np.where(grid.latent, cached_width(grid), 2 * kv_heads * grid.head_dim) * tokens


def reread(grid: Grid, ranks: Ranks | None = None) -> Floats:
    """Times that a decode step reads a key/value head: 1 + kv_reread · (its query heads on this rank − 1).

    Latent vectors are read by LATENT_QUERY_HEADS query heads at a time.
    """
    shared = grid.tensor if ranks is None else ranks.attention(grid)
    on_rank = np.maximum(np.ceil(grid.kv_heads / shared), 1.0)
    readers = np.where(grid.latent, np.ceil(grid.heads / shared / LATENT_QUERY_HEADS), grid.heads / shared / on_rank)
    return np.asarray(1 + grid.kv_reread * np.maximum(readers - 1, 0.0))


def attention_columns(grid: Grid, ranks: Ranks, absorbed: Bools) -> tuple[Floats, Floats]:
    """Columns of [q | k | v] and of the result, on a rank."""
    shared = ranks.attention(grid)
    by_head = (grid.heads + 2 * grid.kv_heads) * grid.head_dim / shared
    if not np.any(grid.latent):
        return by_head, grid.heads * grid.head_dim / shared
    latent = grid.q_latent + cached_width(grid) + grid.heads * query_width(grid, absorbed) / shared
    out = np.where(grid.latent, value_width(grid, absorbed), output_width(grid))
    return np.where(grid.latent, latent, by_head), grid.heads * out / shared


def made_again(grid: Grid, ranks: Ranks, sequences: Floats, keys: Floats, absorbed: Bools) -> Floats:
    """Products of a rank that make keys and values of ``keys`` latent vectors a sequence, where not absorbed."""
    made = grid.heads * grid.kv_latent * (grid.head_dim - grid.rotated + grid.value_dim) / ranks.attention(grid)
    return np.where(grid.latent & ~absorbed, sequences * np.maximum(keys, 0.0) * made, 0.0)


def expanded_elements(grid: Grid, ranks: Ranks, sequences: Floats, keys: Floats, absorbed: Bools) -> Floats:
    """Elements of those keys and values."""
    made = grid.heads * (grid.head_dim + grid.value_dim) / ranks.attention(grid)
    return np.where(grid.latent & ~absorbed, sequences * keys * made, 0.0)
