"""The next tokens, from logits that lie spread over the chips: [batch, vocab.all], in float32.

The vocabulary is never brought together. Greedy needs one maximum a sequence. Sampling is greedy too, after Gumbel
noise is added (the Gumbel-max trick: Maddison, Tarlow and Minka 2014, A* sampling, section 2), and every chip makes
the noise of its own ids. Which ids stay in the draw is :mod:`engines.transformer.generate.top_k_top_p`'s.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from engines.transformer.generate.top_k_top_p import Contenders, comparable, likeliest, narrow, takes_few
from engines.transformer.layers.embedding import vocab_ids
from engines.transformer.options import Sampling
from engines.transformer.partition.plan import Plan


def next_tokens(plan: Plan, scores: Array, sampling: Sampling, position: Array | int) -> Array:
    """scores: [batch, vocab.all] → the id of each sequence at ``position``, on every chip.

    The same for the same scores, seed and position, however they are spread. Of equals the lowest id.
    """
    if sampling.greedy:
        return greedy(plan, scores)
    if plan.annotation is not None:
        return _by_hand(plan, scores, sampling, position)
    drawn = Contenders(comparable(scores), jnp.broadcast_to(vocab_ids(plan), scores.shape), plan.axes.all)
    few = takes_few(plan, sampling)
    if few:
        drawn = likeliest(drawn, sampling.top_k)
    scaled = (drawn.scores - _highest(drawn)[:, None]) / sampling.temperature
    noisy = scaled + gumbel(sampling.seed, position, drawn.ids)
    kept = narrow(plan, drawn, scaled, 0 if few else sampling.top_k, sampling.top_p)
    return _best(plan, drawn._replace(scores=jnp.where(kept, noisy, -jnp.inf)))


def greedy(plan: Plan, scores: Array) -> Array:
    """scores: [batch, vocab.all] → the most likely id of each sequence, on every chip; the lowest of equals."""
    return _best(plan, Contenders(scores, vocab_ids(plan), plan.axes.all))


def gumbel(seed: int, position: Array | int, ids: Array) -> Array:
    """Standard Gumbel noise of ids [batch, count], a function of seed, position, sequence and id alone.

    −log(−log(1 − u)) with the 32 bits of an id as u: the largest values come from the smallest u, where float32 is
    finest, so that an id of probability 1e-9 still has its share of draws.
    """
    words = np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)
    fold = jax.random.fold_in
    key = fold(jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32"), position)
    rows = jax.vmap(fold, (None, 0))(key, jnp.arange(ids.shape[0]))
    keys = jax.vmap(jax.vmap(fold, (None, 0)))(rows, ids)
    uniform = (jax.random.key_data(keys)[..., 0].astype(jnp.float32) + 0.5) * 2.0**-32
    # Rounded up to 1, a draw would be −inf, as what is not kept.
    return -jnp.log(-jnp.log1p(-jnp.minimum(uniform, 1 - 2.0**-24)))


def _best(plan: Plan, drawn: Contenders) -> Array:
    """The id of each sequence's highest score; the lowest of equals."""
    scores, ids, axes, _ = drawn
    best = scores.max(axis=1)
    found: Array = jnp.where(scores == best[:, None], ids, plan.padded.vocab).min(axis=1)
    if not axes:
        return found
    overall = lax.pmax(best, axes)
    lowest: Array = lax.pmin(jnp.where(best == overall, found, plan.padded.vocab), axes)
    return lowest


def _highest(drawn: Contenders) -> Array:
    highest = drawn.scores.max(axis=1)
    return lax.pmax(highest, drawn.axes) if drawn.axes else highest


def _by_hand(plan: Plan, scores: Array, sampling: Sampling, position: Array | int) -> Array:
    """Of a whole vocabulary that the compiler spreads: it would bring it together to look for the likeliest ids."""
    assert plan.annotation is not None
    cut, mesh = plan.annotation

    def draw(scores: Array, position: Array) -> Array:
        return next_tokens(cut, scores, sampling, position)

    inputs = (P(None, cut.axes.all or None), P())
    mapped = jax.shard_map(draw, mesh=mesh, in_specs=inputs, out_specs=P(), check_vma=False)
    tokens: Array = mapped(scores, jnp.asarray(position, jnp.int32))
    return tokens
