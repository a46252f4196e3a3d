"""What a point that was made smaller is compared with, by the reference in PyTorch."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from engines.core.model import Model
from engines.core.point import Point
from engines.torch.activation_scores import by_activation
from engines.torch.job import Job
from engines.torch.reference import reference_logits
from engines.weights.pruned.scores import LayerScores
from engines.weights.quality import Quality, pruning_scores, quality_of
from engines.weights.random import Source


def scores_of(job: Job) -> Sequence[LayerScores] | None:
    """What decides which parts of a job's model stay, of every layer of the whole; None where all do."""
    if not job.by_parts:
        return None
    score = pruning_scores(job.asked, job.quality, job.whole_source(), by_activation)
    return [score(number) for number in range(job.asked.model.num_layers)]


def quality(job: Job) -> Quality | None:
    """See :func:`engines.weights.quality.quality_of`."""

    def logits(model: Model, tokens: NDArray[np.int32], positions: list[int], source: Source) -> NDArray[np.float32]:
        ids = torch.from_numpy(np.ascontiguousarray(tokens)).long()
        found: NDArray[np.float32] = reference(job.point, model, ids, positions, source).cpu().numpy()
        return found

    return quality_of(job.asked, job.point, job.quality, job.whole_source(), job.source(), logits)


def reference(
    point: Point,
    model: Model,
    tokens: torch.Tensor,
    positions: list[int],
    source: Source,
    length: int | None = None,
) -> torch.Tensor:
    """:func:`engines.torch.reference.reference_logits`, on the point's GPU if they fit beside the model, else here."""
    if point.chip.kind == "gpu":
        try:
            return reference_logits(model, tokens.to("cuda"), positions, source, length)
        except torch.OutOfMemoryError:
            pass  # freed below: here the traceback still references the tensors
        torch.cuda.empty_cache()
    return reference_logits(model, tokens, positions, source, length)
