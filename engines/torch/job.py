"""What the ranks of a point are told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.core.point import Point
from engines.core.pruning import NONE, pruning_of
from engines.torch.shard import Shard
from engines.weights.checkpoint.source import Checkpoint
from engines.weights.lengths import lengths_of
from engines.weights.pruned.scores import LayerScores
from engines.weights.pruned.source import PrunedWeights
from engines.weights.quality import QualitySettings
from engines.weights.random import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every rank of a point runs. ``decode`` is eager, graph or compile; ``threads`` 0 keeps PyTorch's default.

    A collective times out after ``timeout_s``. ``checkpoint`` is the folder of the weights, None for random weights.
    Of a pruned point ``point`` is the model that is left and ``unpruned`` what was asked for; the ``scores`` of the
    whole model's layers decide what stays, and are computed once for all ranks.
    """

    point: Point
    seed: int
    decode: str
    checkpoint: str | None = None
    threads: int = 0
    timeout_s: float = 600
    offload_dir: str | None = None
    unpruned: Point | None = None
    quality: QualitySettings = field(default_factory=QualitySettings)
    scores: Sequence[LayerScores] | None = None

    @property
    def asked(self) -> Point:
        """The point before anything was left out of its model."""
        return self.unpruned or self.point

    @property
    def by_parts(self) -> bool:
        """Whether the model that is run is smaller than the one that was asked for."""
        return pruning_of(self.asked.pruning).by_parts

    def source(self) -> Source:
        """The source of the weights. The engine has already checked a checkpoint's values."""
        whole = self.whole_source()
        if self.asked.pruning == NONE:
            return whole
        return PrunedWeights(self.asked.model, self.asked.pruning, whole, self._score)

    def whole_source(self) -> Source:
        """That of the model from which nothing was left out."""
        return self.seed if self.checkpoint is None else Checkpoint(Path(self.checkpoint), self.asked.model)

    def _score(self, layer: int) -> LayerScores:
        assert self.scores is not None, "parts are left out by scores, which whoever loads weights gives"
        return self.scores[layer]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each prompt [batch_size]."""
        return lengths_of(self.point, self.seed)

    @property
    def groups(self) -> tuple[int, ...]:
        """Groups of experts and of sequences, where there is more than one of either."""
        found = self.point.expert_parallel or 1, self.point.data_parallel or 1
        return found if max(found) > 1 else ()

    def shard(self, rank: int) -> Shard:
        """The part of the model that a rank holds."""
        return Shard(self.point.model, self.point.tensor_degree, self.point.pipeline_degree, rank, *self.groups)
