"""The next tokens, from logits that lie spread over the chips: [batch, vocab.all_axes], in float32.

The vocabulary is never brought together. Greedy needs one maximum a sequence. Sampling is greedy too, after Gumbel
noise is added (the Gumbel-max trick: Maddison, Tarlow and Minka 2014, A* sampling, section 2), and every chip makes
the noise of its own ids. top-k and top-p both keep the first ids in the order of (logit descending, id ascending):
the fewest whose weights reach a target, with weight 1 and target k, or with their probability and p. Where that order
is to be cut is found digit by digit, as radix sort orders numbers: each round adds up, for 15 places to cut, the
weight above each. Weights are whole numbers, so that chips get the same sums in whatever order they add.
"""

from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engines.transformer.generation import Sampling
from engines.transformer.moves import pin, place, total
from engines.transformer.plan import Plan

DIGIT_BITS: Final = 4
WHOLE: Final = 1 << 31
"""A probability of 1 in units of a weight: fine beyond float32, and all of them together fit 32 bits."""


def next_tokens(plan: Plan, scores: Array, sampling: Sampling, position: Array | int) -> Array:
    """scores: [batch, vocab.all_axes] → the id of each sequence at ``position``, on every chip.

    The same for the same scores, seed and position, however they are spread. Of equals the lowest id.
    """
    if sampling.greedy:
        return greedy(plan, scores)
    scaled = (scores - _highest(plan, scores.max(axis=1))[:, None]) / sampling.temperature
    kept = keep(plan, scores, scaled, sampling)
    noisy = scaled + gumbel(plan, sampling.seed, scores.shape[0], position)
    return greedy(plan, jnp.where(kept, noisy, -jnp.inf))


def greedy(plan: Plan, scores: Array) -> Array:
    """scores: [batch, vocab.all_axes] → the most likely id of each sequence, on every chip; the lowest of equals."""
    best = scores.max(axis=1)
    ids: Array = jnp.where(scores == best[:, None], vocab_ids(plan), plan.vocab).min(axis=1)
    if not plan.all_axes:
        return ids
    overall = lax.pmax(best, plan.all_axes)
    lowest: Array = lax.pmin(jnp.where(best == overall, ids, plan.vocab), plan.all_axes)
    return lowest


def vocab_ids(plan: Plan) -> Array:
    """The ids of this chip's vocab.all_axes."""
    size = plan.vocab // plan.size(plan.all_axes)
    ids: Array = place(plan.all_axes) * size + jnp.arange(size, dtype=jnp.int32)
    return ids


def keep(plan: Plan, scores: Array, scaled: Array, sampling: Sampling) -> Array:
    """Which ids stay in the draw, [batch, vocab.all_axes].

    ``scaled`` are the scores by temperature, 0 at the highest. The k likeliest come first; ``top_p`` is a share of
    what those hold.
    """
    kept = jnp.isfinite(scores)
    if sampling.top_k:
        kept &= _first(plan, scores, kept.astype(jnp.uint32), sampling.top_k)
    if sampling.top_p < 1:
        weight = jnp.where(kept, jnp.exp(scaled), 0)
        share = weight / total(weight.sum(axis=1), plan.all_axes)[:, None]
        weight = jnp.round(share * float(WHOLE)).astype(jnp.uint32)
        kept &= _first(plan, scores, weight, max(1, round(sampling.top_p * WHOLE)))
    return kept


def gumbel(plan: Plan, seed: int, batch: int, position: Array | int) -> Array:
    """Standard Gumbel noise [batch, vocab.all_axes], a function of seed, position, sequence and id alone.

    −log(−log(1 − u)) with the ids' 32 bits as u: the largest values come from the smallest u, where float32 is finest,
    so that an id of probability 1e-9 still has its share of draws.
    """
    words = np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)
    key = jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
    fold = jax.random.fold_in
    rows = jax.vmap(fold, (None, 0))(fold(key, position), jnp.arange(batch))
    keys = jax.vmap(jax.vmap(fold, (None, 0)), (0, None))(rows, vocab_ids(plan))
    bits = pin(plan, jax.random.key_data(keys)[..., 0], "", "all_axes")
    uniform = (bits.astype(jnp.float32) + 0.5) * 2.0**-32
    # Rounded up to 1, a draw would be −inf, as what is not kept.
    return -jnp.log(-jnp.log1p(-jnp.minimum(uniform, 1 - 2.0**-24)))


def _first(plan: Plan, scores: Array, weight: Array, target: int) -> Array:
    """The fewest first ids, by score and then by id, whose weights (uint32) reach ``target``; all, if none do."""
    wanted = jnp.minimum(total(weight.sum(axis=1), plan.all_axes), jnp.uint32(target))
    order = _ordered(scores)
    cut = _cut(plan, order, weight, wanted, 32)[:, None]
    above, equal = order > cut, order == cut
    wanted -= total(jnp.where(above, weight, 0).sum(axis=1), plan.all_axes)
    bits = plan.vocab.bit_length()
    lowest = jnp.broadcast_to((1 << bits) - 1 - vocab_ids(plan).astype(jnp.uint32), scores.shape)
    found = _cut(plan, lowest, jnp.where(equal, weight, 0), wanted, bits)[:, None]
    return above | (equal & (lowest >= found))


def _cut(plan: Plan, order: Array, weight: Array, wanted: Array, bits: int) -> Array:
    """The highest number [batch] with which ids of that ``order`` and higher weigh as much as is ``wanted``.

    ``order``: uint32 below 2^bits. Digits are found from the first on, each by what its 15 values above 0 leave.
    """
    digits = -(-bits // DIGIT_BITS)
    values = jnp.arange(1, 1 << DIGIT_BITS, dtype=jnp.uint32)

    def digit(number: Array, found: Array) -> Array:
        shift = ((digits - 1 - number) * DIGIT_BITS).astype(jnp.uint32)
        tried = found[:, None] + (values << shift)
        held = jnp.where(order[:, None] >= tried[..., None], weight[:, None], 0).sum(axis=2)
        enough = total(held, plan.all_axes) >= wanted[:, None]
        return found + (enough.sum(axis=1, dtype=jnp.uint32) << shift)

    cut: Array = lax.fori_loop(0, digits, digit, jnp.zeros_like(wanted))
    return cut


def _ordered(scores: Array) -> Array:
    """uint32 in the order of the float32 ``scores``: the sign's bit turned, below zero all bits.

    −0 is 0, and so are subnormal numbers, on every device: some compare them so.
    """
    normal = jnp.abs(scores) >= np.finfo(np.float32).tiny
    bits = lax.bitcast_convert_type(jnp.where(normal, scores, 0.0), jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _highest(plan: Plan, x: Array) -> Array:
    """The maximum over all chips, on every chip."""
    highest: Array = lax.pmax(x, plan.all_axes) if plan.all_axes else x
    return highest
