"""Whether a program computed what was asked: its logits beside those of a reference that reads its tokens."""

from dataclasses import dataclass

import jax
import numpy as np
from numpy.typing import NDArray

from engines.core.engine import Verification
from engines.jax.arrays import gathered
from engines.jax.bfloat16 import Bfloat16
from engines.jax.prompt_batch import Prompts
from engines.jax.ways.steps import Steps
from engines.jax.work import Work
from engines.transformer.params.quantize import is_quantized
from engines.transformer.reference import reference_logits
from engines.weights.logits import agreement, checked_rows, kl_divergence, relative_error
from engines.weights.quality import Quality
from engines.weights.random import Source
from engines.weights.texts import Texts


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the stages made: the token behind each prompt and its logits, if a prompt was read; (tokens, logits)."""

    first: jax.Array
    first_scores: jax.Array | None
    decoded: tuple[jax.Array, jax.Array] | None


def verified(
    work: Work,
    prompts: Prompts,
    way: Steps,
    outputs: Outputs,
    source: Source,
    tolerance: float,
    quality: Quality | None,
) -> Verification:
    """Compare the logits with those of the float32 reference fed with their tokens.

    Compared are the last position of each prompt and the last few decode steps, which read the whole cache.
    A quantized run is compared with a reference of bfloat16 weights as well. ``quality`` None is computed of tokens
    that leave early.

    Raises:
        InvalidRequest: a stop token ended a sequence before the last step.
    """
    rows = checked_rows(work.point, work.plan.cache_len)
    texts = Texts(prompts.tokens[rows], prompts.ends[rows] + 1)
    parts = []
    if outputs.first_scores is not None:
        texts.compare_last()
        parts.append(gathered(outputs.first_scores)[None, rows])
    if outputs.decoded is not None:
        first, generated, scores = (gathered(each) for each in (outputs.first, *outputs.decoded))
        way.check(first, generated)
        texts.go_on(np.concatenate([first[rows, None], generated.T[rows, :-1]], axis=1), len(scores))
        parts.append(scores[:, rows])
    output = np.concatenate(parts)[..., : work.point.model.vocab_size].astype(np.float64)
    passed = None if outputs.decoded is None else way.layers(rows, texts.tokens.shape[1])

    def reference(source: Source, layers: NDArray[np.int64] | None = passed) -> NDArray[np.float64]:
        found = reference_logits(
            work.point.model, texts.tokens, texts.asked, source, work.plan.cache_len, layers
        ).astype(np.float64)
        return texts.of_each(found)

    expected = reference(source)
    error = relative_error(expected, output)
    bfloat16 = reference(Bfloat16(source)) if is_quantized(work.plan) else None
    if quality is None and passed is not None:
        assert outputs.decoded is not None
        made = len(outputs.decoded[1])
        whole = reference(source, None)[-made:]
        quality = Quality(kl_divergence(whole, output[-made:]), agreement(whole, output[-made:]), None)
    return Verification(
        quality_kl=None if quality is None else quality.kl,
        quality_agreement=None if quality is None else quality.agreement,
        quality_perplexity=None if quality is None else quality.perplexity,
        ok=error <= tolerance,
        max_relative_error=error,
        tolerance=tolerance,
        against="float32 on a single device",
        kl_divergence=kl_divergence(expected, output),
        bf16_max_relative_error=None if bfloat16 is None else relative_error(bfloat16, output),
        bf16_kl_divergence=None if bfloat16 is None else kl_divergence(bfloat16, output),
    )
