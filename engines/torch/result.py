"""The outputs of all ranks, joined and verified."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.core.engine import Verification
from engines.torch.job import Job
from engines.torch.quality import quality, reference
from engines.weights.logits import checked_rows, kl_divergence, relative_error
from engines.weights.random import prompt
from engines.weights.texts import Texts


@dataclass(frozen=True, slots=True)
class Outputs:
    """first: [batch]; first_scores: [batch, vocab]; generated: [steps, batch]; kept: [kept, batch, vocab]."""

    first: NDArray[np.int64]
    first_scores: NDArray[np.float32] | None
    generated: NDArray[np.int64]
    kept: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence[dict[str, Any] | None]) -> "Outputs":
        """Join the ranks' outputs, in order: ranks of the last stage hold consecutive parts of the vocabulary.

        Each group of ranks has sequences of its own.
        """
        last = [part for part in parts if part is not None]
        groups = [[part for part in last if part["group"] == number] for number in sorted({p["group"] for p in last})]

        def scores(name: str) -> Any:
            """[..., batch, vocab]."""
            each = [np.concatenate([part[name] for part in group], axis=-1) for group in groups]
            return np.concatenate(each, axis=-2)

        return cls(
            first=np.concatenate([group[0]["first"] for group in groups]),
            first_scores=None if last[0]["first_scores"] is None else scores("first_scores"),
            generated=np.concatenate([group[0]["generated"] for group in groups], axis=-1),
            kept=scores("kept"),
        )


def verification(job: Job, outputs: Outputs, tolerance: float) -> Verification:
    """Compare logits with the float32 reference fed with the same tokens.

    Compared are the last position of the prompt and the last few decode steps, which read the whole cache.
    """
    point = job.point
    length = point.input_len + point.output_len
    rows = checked_rows(point, length)
    texts = Texts(prompt(point.model, point.batch_size, max(point.input_len, 1), job.seed)[rows], job.lengths[rows])
    found: list[NDArray[np.float32]] = []
    if outputs.first_scores is not None:
        texts.compare_last()
        found.append(outputs.first_scores[None, rows])
    if len(outputs.kept):
        generated = outputs.generated.T[rows, :-1]
        texts.go_on(np.concatenate([outputs.first[rows, None], generated], axis=1), len(outputs.kept))
        found.append(outputs.kept[:, rows])
    tokens = torch.from_numpy(texts.tokens).long()
    expected = reference(point, point.model, tokens, texts.asked, job.source(), length)
    truth, output = texts.of_each(expected.double().cpu().numpy()), np.concatenate(found).astype(np.float64)
    against_whole = quality(job)
    error = relative_error(truth, output)
    return Verification(
        ok=error <= tolerance,
        max_relative_error=error,
        tolerance=tolerance,
        against="float32 on a single device",
        kl_divergence=kl_divergence(truth, output),
        quality_kl=None if against_whole is None else against_whole.kl,
        quality_agreement=None if against_whole is None else against_whole.agreement,
        quality_perplexity=None if against_whole is None else against_whole.perplexity,
    )
