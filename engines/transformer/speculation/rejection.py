"""Which proposed tokens are kept, and which token follows: the output is then distributed as the model's own.

Rejection sampling (Leviathan, Kalman and Matias 2023, "Fast inference from Transformers via speculative decoding",
section 2.3; Chen et al. 2023): a token d drawn from q is kept with probability min(1, p(d)/q(d)); the first that is not
is replaced by one drawn from max(0, p − q), normalized; after the last, one is drawn from p. Greedy decoding keeps what
the model would have chosen. Logits stay split over the chips, and random numbers are functions of seed, sequence,
position and id alone, as in :mod:`engines.transformer.generate.sampling`.
"""

from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engines.transformer.comm.collectives import all_reduce
from engines.transformer.generate.sampling import best_of, greedy, highest_of
from engines.transformer.generate.top_k_top_p import Candidates, comparable, kept_mask
from engines.transformer.layers.embedding import vocab_ids
from engines.transformer.options import Sampling
from engines.transformer.partition.plan import Plan

DRAFTED: Final = 1 << 30
KEPT: Final = DRAFTED + 1
FOLLOWING: Final = DRAFTED + 2
"""What random numbers at a position are for. Those of a proposal that is taken back are drawn again at its position:
nothing that is kept depends on them."""


class Proposal(NamedTuple):
    """``tokens`` [batch, γ], and the logarithm of the probabilities that they were drawn by, [batch, γ, vocab.all].

    Without ``log_q`` each was the only choice.
    """

    tokens: Array
    log_q: Array | None = None


class Verdict(NamedTuple):
    """``kept`` [batch]: how many of the proposed tokens, from the first on; ``following`` [batch]: the next token."""

    kept: Array
    following: Array


def log_probabilities(plan: Plan, scores: Array, sampling: Sampling) -> Array:
    """scores: [rows, vocab.all] → the logarithm of the probability of each id, with temperature, top-k and top-p."""
    candidates = Candidates(comparable(scores), jnp.broadcast_to(vocab_ids(plan), scores.shape), plan.axes.all)
    scaled = (candidates.scores - highest_of(candidates)[:, None]) / sampling.temperature
    kept = kept_mask(plan, candidates, scaled, sampling.top_k, sampling.top_p)
    scaled = jnp.where(kept, scaled, -jnp.inf)
    total = all_reduce(jnp.exp(scaled).sum(axis=1), plan.axes.all)
    return scaled - jnp.log(total)[:, None]


def drawn(plan: Plan, log_p: Array, sampling: Sampling, purpose: int, position: Array) -> Array:
    """log_p: [batch, vocab.all] → an id of each sequence, by the Gumbel-max trick; ``position`` is [batch]."""
    ids = jnp.broadcast_to(vocab_ids(plan), log_p.shape)
    keys = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(_keys(sampling.seed, purpose, position), ids)
    # As in :func:`engines.transformer.generate.sampling.gumbel`, small probabilities are drawn as often as they should.
    noise = -jnp.log(-jnp.log1p(-jnp.minimum(_uniform(keys), 1 - 2.0**-24)))
    return best_of(plan, Candidates(log_p + noise, vocab_ids(plan), plan.axes.all))


def verdict(
    plan: Plan, scores: Array, proposal: Proposal, sampling: Sampling, position: Array, forced: float | None = None
) -> Verdict:
    """scores: [batch, γ + 1, vocab.all], those that follow the last token and each proposed one.

    ``position`` [batch] is that of the first proposed token. With ``forced`` a proposed token is kept with that
    probability whatever it is, to study times: the output is then not the model's.
    """
    batch, count = proposal.tokens.shape
    flat = scores.reshape(batch * (count + 1), -1)
    at = position[:, None] + jnp.arange(count)
    if sampling.greedy:
        chosen = greedy(plan, flat).reshape(batch, count + 1)
        keeps = chosen[:, :count] == proposal.tokens if forced is None else _chance(sampling, at) < forced
        kept = _before_first_rejection(keeps)
        return Verdict(kept, jnp.take_along_axis(chosen, kept[:, None], axis=1)[:, 0])
    log_p = log_probabilities(plan, flat, sampling).reshape(scores.shape)
    if forced is None:
        ratio = _of_tokens(plan, log_p[:, :count], proposal.tokens)
        if proposal.log_q is not None:
            ratio = ratio / _of_tokens(plan, proposal.log_q, proposal.tokens)
        keeps = _chance(sampling, at) < ratio
    else:
        keeps = _chance(sampling, at) < forced
    kept = _before_first_rejection(keeps)
    left = jnp.take_along_axis(log_p, kept[:, None, None], axis=1)[:, 0]
    if forced is None:
        left = jnp.where((kept < count)[:, None], _without(plan, left, proposal, kept), left)
    return Verdict(kept, drawn(plan, left, sampling, FOLLOWING, position + kept))


def _without(plan: Plan, log_p: Array, proposal: Proposal, kept: Array) -> Array:
    """log max(0, p − q) of the first token that was not kept, [batch, vocab.all]; not normalized."""
    at = jnp.minimum(kept, proposal.tokens.shape[1] - 1)[:, None]
    if proposal.log_q is None:
        return jnp.where(vocab_ids(plan) == jnp.take_along_axis(proposal.tokens, at, axis=1), -jnp.inf, log_p)
    log_q = jnp.take_along_axis(proposal.log_q, at[..., None], axis=1)[:, 0]
    left = jnp.log(jnp.maximum(jnp.exp(log_p) - jnp.exp(log_q), 0))
    # Rounding may reject where p and q are equal: nothing is left, and p itself is drawn from.
    some = all_reduce((left > -jnp.inf).sum(axis=1), plan.axes.all) > 0
    return jnp.where(some[:, None], left, log_p)


def _before_first_rejection(keeps: Array) -> Array:
    kept: Array = jnp.cumprod(keeps.astype(jnp.int32), axis=1).sum(axis=1)
    return kept


def _of_tokens(plan: Plan, log_p: Array, tokens: Array) -> Array:
    """log_p: [batch, γ, vocab.all] → the probability of each token, [batch, γ]."""
    mine = vocab_ids(plan) == tokens[..., None]
    return all_reduce(jnp.where(mine, jnp.exp(log_p), 0).sum(axis=-1), plan.axes.all)


def _chance(sampling: Sampling, at: Array) -> Array:
    """Uniform numbers in [0, 1) at positions [batch, count] of each sequence."""
    keys = jax.vmap(lambda each: _keys(sampling.seed, KEPT, each), 1, 1)(at)
    return _uniform(keys, 0.0)


def _keys(seed: int, purpose: int, position: Array) -> Array:
    """A key for the position [batch] of each sequence."""
    fold = jax.random.fold_in
    words = np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)
    key = fold(jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32"), purpose)
    rows = jax.vmap(fold, (None, 0))(key, jnp.arange(position.shape[0]))
    keys: Array = jax.vmap(fold)(rows, position)
    return keys


def _uniform(keys: Array, middle: float = 0.5) -> Array:
    """Of each key a number below 1, from 32 random bits."""
    bits = jax.random.key_data(keys)[..., 0].astype(jnp.float32)
    uniform: Array = (bits + middle) * 2.0**-32
    return jnp.minimum(uniform, 1 - 2.0**-24)
