"""What an operator costs a GPU in one sharding: the terms of :mod:`engines.analytic.gpu_nodes`, an operator at a time.

Kernels take turns, so that a matmul's computing overlaps the reading of its own weights alone, and what lies between
two matmuls crosses HBM once more.
"""

from typing import ClassVar

from engines.analytic.alpa.costs import Cost, Costs
from engines.analytic.grid import Grid


class NodeCosts(Costs):
    """Costs of operators of the one point of ``grid`` on GPU nodes."""

    on_gpus: ClassVar[bool] = True
    stream_passes: ClassVar[float] = 4.0
    """A kernel adds and norms: it reads two and writes two."""
    columns_passed: ClassVar[float] = 2.0
    """The activation between is a kernel of its own."""

    def __init__(self, grid: Grid, *, prefill: bool, micro_batches: int = 1) -> None:
        """``micro_batches``: as many of the grid's batch are in the cache."""
        super().__init__(grid, prefill=prefill, micro_batches=micro_batches)
        self.prefetch = 0.0
        self.judged = self.batch * (self.length if prefill and self.value("all_logits") > 0 else 1.0)
        self.sampled = float(self.batch)

    def _beside(self, memory_s: float, loaded_s: float) -> float:
        """Activations are no part of a matmul's stream."""
        del memory_s
        return loaded_s

    def between(self, sequences: int, columns: int, hidden: bool) -> Cost:
        """The activation: it reads what the feed-forward's matmul made, and writes what the next one reads."""
        elements = self.tokens / sequences * (self.ffn_inputs + self.ffn_hidden) / columns
        moved = elements * self.act * self.value("vector_passes")
        return Cost(memory_s=self.layers * moved / self.stream) if hidden else Cost()

    def host_s(self) -> float:
        """Seconds in which the host starts a pass's kernels."""
        return self.layers * self.value("host_prefill_layer_s" if self.prefill else "host_layer_s")

    def _reread(self, shards: float) -> float:
        """1 + kv_reread · (query heads of a key/value head on this GPU − 1), in a decode step."""
        on_gpu = max(self.kv_heads / shards, 1.0)
        return 1.0 if self.prefill else 1 + self.value("kv_reread") * (self.heads / shards / on_gpu - 1)

    def _moved(self, columns: float) -> float:
        """Bias and transpose read and write them."""
        return 2 * columns * self.act * self.value("vector_passes")

    def _kept(self, scores: float) -> float:
        """None where attention is fused."""
        return scores if self.value("score_passes") > 0 else 0.0


def costs_of(grid: Grid, *, prefill: bool, micro_batches: int = 1) -> Costs:
    """The costs of the one point of ``grid``, by its kind of chip."""
    kind = NodeCosts if bool(grid.gpu.all()) else Costs
    return kind(grid, prefill=prefill, micro_batches=micro_batches)
