"""The next tokens, from logits that are split over the chips: [batch, vocab.all], float32.

The logits are never gathered. Greedy needs one maximum a sequence. Sampling is the maximum after Gumbel noise is added
(the Gumbel-max trick: Maddison, Tarlow and Minka 2014, A* sampling, section 2), and every chip generates the noise of
its own ids. :mod:`engines.transformer.generate.top_k_top_p` selects the ids to sample from.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from engines.transformer.generate.top_k_top_p import Candidates, comparable, gathers_few, kept_mask, top_candidates
from engines.transformer.layers.embedding import vocab_ids
from engines.transformer.options import Sampling
from engines.transformer.partition.plan import Plan


def next_tokens(plan: Plan, scores: Array, sampling: Sampling, position: Array | int) -> Array:
    """scores: [batch, vocab.all] → the id of each sequence at ``position``, on every chip.

    Deterministic in scores, seed and position, whatever the partitioning. Ties go to the lowest id.
    """
    if sampling.greedy:
        return greedy(plan, scores)
    if plan.annotation is not None:
        return _per_chip(plan, scores, sampling, position)
    candidates = Candidates(comparable(scores), jnp.broadcast_to(vocab_ids(plan), scores.shape), plan.axes.all)
    few = gathers_few(plan, sampling)
    if few:
        candidates = top_candidates(candidates, sampling.top_k)
    scaled = (candidates.scores - highest_of(candidates)[:, None]) / sampling.temperature
    noisy = scaled + gumbel(sampling.seed, position, candidates.ids)
    kept = kept_mask(plan, candidates, scaled, 0 if few else sampling.top_k, sampling.top_p)
    return best_of(plan, candidates._replace(scores=jnp.where(kept, noisy, -jnp.inf)))


def greedy(plan: Plan, scores: Array) -> Array:
    """scores: [batch, vocab.all] → the most likely id of each sequence, on every chip; ties go to the lowest."""
    return best_of(plan, Candidates(scores, vocab_ids(plan), plan.axes.all))


def gumbel(seed: int, position: Array | int, ids: Array) -> Array:
    """Standard Gumbel noise of ids [batch, count], a function of seed, position, sequence and id alone.

    −log(−log(1 − u)) with 32 random bits an id as u: the largest values come from the smallest u, where float32 is most
    precise, so that an id of probability 1e-9 is still drawn that often.
    """
    words = np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)
    fold = jax.random.fold_in
    key = fold(jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32"), position)
    rows = jax.vmap(fold, (None, 0))(key, jnp.arange(ids.shape[0]))
    keys = jax.vmap(jax.vmap(fold, (None, 0)))(rows, ids)
    uniform = (jax.random.key_data(keys)[..., 0].astype(jnp.float32) + 0.5) * 2.0**-32
    # A value rounded up to 1 would become −inf, which marks ids that are excluded.
    return -jnp.log(-jnp.log1p(-jnp.minimum(uniform, 1 - 2.0**-24)))


def best_of(plan: Plan, candidates: Candidates) -> Array:
    """The id of each sequence's highest score; ties go to the lowest."""
    scores, ids, axes, _ = candidates
    best = scores.max(axis=1)
    found: Array = jnp.where(scores == best[:, None], ids, plan.padded.vocab).min(axis=1)
    if not axes:
        return found
    overall = lax.pmax(best, axes)
    lowest: Array = lax.pmin(jnp.where(best == overall, found, plan.padded.vocab), axes)
    return lowest


def highest_of(candidates: Candidates) -> Array:
    """The highest score of each sequence, [batch]."""
    highest = candidates.scores.max(axis=1)
    return lax.pmax(highest, candidates.axes) if candidates.axes else highest


def _per_chip(plan: Plan, scores: Array, sampling: Sampling, position: Array | int) -> Array:
    """Sampling inside ``shard_map`` where the compiler partitions: its own top-k would gather the whole vocabulary."""
    assert plan.annotation is not None
    cut, mesh = plan.annotation

    def draw(scores: Array, position: Array) -> Array:
        return next_tokens(cut, scores, sampling, position)

    inputs = (P(None, cut.axes.all or None), P())
    mapped = jax.shard_map(draw, mesh=mesh, in_specs=inputs, out_specs=P(), check_vma=False)
    tokens: Array = mapped(scores, jnp.asarray(position, jnp.int32))
    return tokens
