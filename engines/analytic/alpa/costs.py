"""What an operator costs a chip in one sharding, with the closed forms' constants and symbols.

These are the terms of :mod:`engines.analytic.tpu_torus`, an operator at a time: a matmul's share of the peak, the
reading of its weights, what it reads and writes of activations; attention's products, its cache and its scores.
"""

from collections.abc import Iterable
from copy import copy
from typing import Any, ClassVar, NamedTuple

import numpy as np

from engines.analytic.attention import held, seen_in_decode, seen_in_prefill
from engines.analytic.cost import matmul_efficiency
from engines.analytic.grid import Grid
from engines.analytic.torus_attention import head_shards, padded_heads, run_kv_heads
from engines.analytic.tpu_torus import dense_columns

Part = tuple[float, float]
"""(columns, over how many chips they split at most): a head is whole on a chip."""
EVEN = np.inf
"""Of columns that any number of chips split."""


def on_chip(parts: Iterable[Part], shards: int) -> float:
    """Columns on a chip where ``shards`` chips split them."""
    return float(sum(columns / min(shards, most) for columns, most in parts))


class Cost(NamedTuple):
    """One operator in one sharding: fields as in :class:`engines.analytic.alpa.graph.Operator`."""

    compute_s: float = 0.0
    memory_s: float = 0.0
    overlapped_s: float = 0.0
    fetched_s: float = 0.0
    waiting_s: float = 0.0
    held_bytes: float = 0.0
    work_bytes: float = 0.0


class Costs:
    """Costs of operators of the one point of ``grid`` in a pass over a prompt (``prefill``) or of one token."""

    on_gpus: ClassVar[bool] = False
    stream_passes: ClassVar[float] = 6.0
    """Of the residual stream through HBM: a norm reads it twice and writes, a sum reads two and writes."""
    columns_passed: ClassVar[float] = 1.0
    """Of an expert's columns: a matmul writes them and the next reads them."""

    def __init__(self, grid: Grid, *, prefill: bool, micro_batches: int = 1) -> None:
        """``micro_batches``: as many of the grid's batch are in the cache.

        ``ffn_inputs`` and ``ffn_hidden`` are the columns of the feed-forward that all tokens pass, as a mean over the
        share ``fed`` of the layers that have one.
        """
        self.grid, self.prefill, self.micro_batches = grid, prefill, micro_batches
        self.batch = int(self.value("batch"))
        self.length = self.value("input_len") if prefill else 1.0
        self.tokens = self.batch * self.length
        self.seen = self.number(seen_in_prefill(grid) if prefill else seen_in_decode(grid))
        context = grid.input_len + grid.output_len
        self.context = self.number(context)
        self.cached = self.number(held(grid, context))
        ffn = dense_columns(grid)
        self.fed = self.number(ffn.there)
        self.ffn_inputs, self.ffn_hidden = (
            self.number(each) / self.fed if self.fed else 0.0 for each in (ffn.inputs, ffn.hidden)
        )
        self.layers, self.d_model, self.act = (self.value(name) for name in ("layers", "d_model", "act_bytes"))
        self.stream = self.value("hbm_bytes_per_s") * self.value("hbm_efficiency")
        self.heads, self.most_heads = self.number(padded_heads(grid)), self.number(head_shards(grid))
        self.kv_heads, self.head_dim = self.number(run_kv_heads(grid)), self.value("head_dim")
        self.prefetch, self.judged = self.value("prefetch"), float(self.batch)
        self.sampled = self.batch / self.number(grid.x * grid.y * grid.z)

    def of_layers(self, share: float) -> "Costs":
        """The costs of operators that only a share of the layers has."""
        found = copy(self)
        found.layers = self.layers * share
        return found

    @staticmethod
    def number(array: Any) -> float:
        """The one entry of an array."""
        return float(np.ravel(array)[0])

    def value(self, name: str) -> float:
        """An array of the grid as a number."""
        return self.number(getattr(self.grid, name))

    def queries(self) -> Part:
        """Columns of the queries, or rows of the output matrix: H·D with heads padded."""
        return self.heads * self.head_dim, self.most_heads

    def keys_and_values(self) -> Part:
        """Columns of keys and values: 2·K·D."""
        return 2 * self.kv_heads * self.head_dim, self.kv_heads

    def timed(
        self, compute_s: float, memory_s: float, loaded_s: float, *, foreseen: bool = True, **rest: float
    ) -> Cost:
        """An operator of every layer; ``loaded_s`` of its memory time reads weights, fetched ahead if ``foreseen``."""
        overlapped_s = self.value("roofline_overlap") * min(compute_s, self._beside(memory_s, loaded_s))
        return Cost(
            compute_s=self.layers * compute_s,
            memory_s=self.layers * memory_s,
            overlapped_s=self.layers * overlapped_s,
            fetched_s=self.layers * max(loaded_s - overlapped_s, 0.0) * foreseen,
            **rest,
        )

    def _beside(self, memory_s: float, loaded_s: float) -> float:
        """Seconds of memory, of which ``loaded_s`` read weights, that may run beside computing: all of it."""
        del loaded_s
        return memory_s

    def between(self, sequences: int, columns: int, hidden: bool) -> Cost:
        """What lies between two matmuls, of which so many chips split tokens and columns: part of the matmuls."""
        del sequences, columns, hidden
        return Cost()

    def host_s(self) -> float:
        """Seconds in which a host starts a pass's kernels: a compiled program is one."""
        return 0.0

    def _reread(self, shards: float) -> float:
        """Times that the cache is read where so many chips split the heads."""
        del shards
        return 1.0

    def _moved(self, columns: float) -> float:
        """Bytes through HBM of so many of queries, keys and values, beside the matmul that made them: fused into it."""
        del columns
        return 0.0

    def _kept(self, scores: float) -> float:
        """How many of so many scores are in memory at once."""
        return scores

    def rate(self, width: float) -> float:
        """Operations a second of a matmul with so much of d_model on a chip."""
        share = self.value("matmul_share") * self.number(matmul_efficiency(self.grid, np.full(1, width)))
        return self.value("peak") * share

    def matmul(self, tokens: float, rows: float, columns: float, width: float, *, whole: float) -> Cost:
        """A chip's [tokens, rows]·[rows, columns], ``width`` of them d_model's, of ``whole`` elements of a matrix.

        2·tokens·rows·columns operations; the matrix is read once, activations cross HBM ``vector_passes`` times.
        """
        loaded_s = whole * self.value("weight_bytes") / self.value("weight_stream") / self.stream
        vectors = tokens * (rows + columns) * self.act
        compute_s = 2 * tokens * rows * columns / self.rate(width)
        memory_s = loaded_s + vectors * self.value("vector_passes") / self.stream
        return self.timed(compute_s, memory_s, loaded_s, work_bytes=vectors)

    def attention(self, sequences: int, heads: int) -> Cost:
        """Attention where chips split sequences and heads: 4·T·seen·H·D products, the cache once, scores some times."""
        shards = min(heads, self.most_heads)
        pairs = self.tokens * self.seen * self.heads / (sequences * shards)
        rate = self.value("stream_peak") * self.value("matmul_efficiency") * self.value("attention_matmul")
        kv_heads = max(np.ceil(self.kv_heads / shards), 1.0)
        entry = 2 * self.head_dim * kv_heads * self.value("kv_bytes") / sequences
        read = entry * self.batch * self.seen / self.value("cache_efficiency") * self._reread(shards)
        scores = self.value("score_passes") * pairs * self.act
        rows = self.tokens / sequences * (2 * self.heads / shards + 2 * kv_heads) * self.head_dim * self.act
        seen = min(self.context, self.seen) if self.prefill else self.context
        work = rows + self._kept(self.tokens * seen * self.heads / (sequences * shards)) * self.act
        made = self.tokens / sequences * (self.heads / shards + 2 * kv_heads) * self.head_dim
        return self.timed(
            4 * pairs * self.head_dim / rate,
            (read + scores + self._moved(made)) / self.stream,
            0.0,
            held_bytes=self.layers * entry * self.batch * self.micro_batches * self.cached,
            work_bytes=work,
        )

    def matrix(self, elements: float) -> Cost:
        """A matrix in memory, ``elements`` of a layer on a chip."""
        return Cost(held_bytes=self.layers * elements * self.value("weight_bytes"))

    def written_s(self, elements: float) -> float:
        """Writing ``elements`` of a layer's matrix to HBM, as gathering it does."""
        return self.layers * elements * self.value("weight_bytes") / self.value("weight_stream") / self.stream

    def table(self, elements: float, width: float) -> Cost:
        """The embedding, and the output matrix of ``elements`` on a chip with ``width`` of d_model."""
        head = self.rate(width) * self.value("head_peak") / self.value("peak")
        one = self.timed(
            2 * self.judged * elements / head,
            elements * self.value("head_bytes") / self.stream,
            elements * self.value("head_bytes") / self.stream,
        )
        timed = Cost(*(each / self.layers for each in one))
        return timed._replace(held_bytes=self.value("tables") * elements * self.value("head_bytes"))
