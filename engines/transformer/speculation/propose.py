"""Ways to propose tokens: a draft model, the model's own first layers, or what followed the same n-gram before."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.forward import forward
from engines.transformer.generate.sampling import greedy
from engines.transformer.layers.kv_cache import Caches
from engines.transformer.layers.own_positions import OwnPositions
from engines.transformer.options import Sampling
from engines.transformer.params.tree import Parameters
from engines.transformer.partition.plan import Plan
from engines.transformer.speculation.first_layers import first_layers, first_parameters, with_first
from engines.transformer.speculation.options import Speculation
from engines.transformer.speculation.rejection import DRAFTED, Proposal, drawn, log_probabilities


class Both(NamedTuple):
    """Parameters, caches or their descriptions, of the model and of its draft model, () where it has none."""

    model: Any
    draft: Any = ()


class Text(NamedTuple):
    """``ids`` [batch, length]: prompt and tokens so far; ``last`` [batch]: where the newest is, which no cache has."""

    ids: Array
    last: Array

    def newest(self, count: int) -> Array:
        """The last ``count`` tokens of every sequence, [batch, count]."""
        at = self.last[:, None] - jnp.arange(count - 1, -1, -1)
        newest: Array = jnp.take_along_axis(self.ids, at, axis=1)
        return newest


Propose = Callable[[Both, Both, Text], tuple[Proposal, Both]]
"""(parameters, caches, text) → the proposed tokens, and the caches as proposing them left them."""


def proposing(plan: Plan, draft: Plan | None, how: Speculation, sampling: Sampling) -> Propose:
    """How tokens are proposed, inside ``shard_map``; ``draft`` is the plan of a draft model, if any."""
    if how.way == "draft":
        assert draft is not None
        return _by_draft(draft, how, sampling)
    if how.way == "self":
        return _by_first_layers(plan, how, sampling)

    def look_up(_parameters: Both, cache: Both, text: Text) -> tuple[Proposal, Both]:
        return Proposal(followed(text, how.count, how.ngram)), cache

    return look_up


def followed(text: Text, count: int, ngram: int) -> Array:
    """What followed the last place before the end where the newest ``ngram`` tokens stand: [batch, count].

    Where that place is near the end, what followed is repeated; where there is none, the newest token is.
    """
    ids, last = text.ids, text.last[:, None]
    at = jnp.arange(ids.shape[1])[None]
    newest = text.newest(ngram) if ngram > 1 else jnp.take_along_axis(ids, last, axis=1)
    same = (at < last) & (at >= ngram - 1)
    for back in range(ngram):
        same &= jnp.roll(ids, back, axis=1) == newest[:, ngram - 1 - back, None]
    found = jnp.where(same, at, -1).max(axis=1, keepdims=True)
    found = jnp.where(found < 0, last - 1, found)
    ahead = found + 1 + jnp.arange(count) % (last - found)
    return jnp.take_along_axis(ids, ahead, axis=1)


def _by_draft(plan: Plan, how: Speculation, sampling: Sampling) -> Propose:
    """Steps of a draft model. It has not seen the last token that it proposed: its first step reads two tokens."""

    def propose(parameters: Both, cache: Both, text: Text) -> tuple[Proposal, Both]:
        proposal, own = _steps(plan, parameters.draft, cache.draft, text, how.count, sampling, first=2)
        return proposal, cache._replace(draft=own)

    return propose


def _by_first_layers(plan: Plan, how: Speculation, sampling: Sampling) -> Propose:
    """Steps of the model's first layers, which share its cache: what they write, the verifying pass writes again."""
    shallow = first_layers(plan, how.layers)

    def propose(parameters: Both, cache: Both, text: Text) -> tuple[Proposal, Both]:
        few = first_parameters(shallow, parameters.model)
        held = cache.model[: len(shallow.stacks)]
        proposal, written = _steps(shallow, few, held, text, how.count, sampling, first=1)
        return proposal, cache._replace(model=with_first(shallow, cache.model, written))

    return propose


def _steps(
    plan: Plan, parameters: Parameters, cache: Caches, text: Text, count: int, sampling: Sampling, *, first: int
) -> tuple[Proposal, Caches]:
    """``count`` steps of one token, of which the first reads the newest ``first``."""

    def read(cache: Caches, tokens: Array, last: Array) -> tuple[Caches, tuple[Array, Array | None]]:
        """Tokens [batch, time] that end at ``last``, and the one that follows."""
        start = last - (tokens.shape[1] - 1)
        scores, cache = forward(plan, parameters, cache, tokens, OwnPositions(start), limit=plan.cache_len)
        if sampling.greedy:
            return cache, (greedy(plan, scores), None)
        log_q = log_probabilities(plan, scores, sampling)
        return cache, (drawn(plan, log_q, sampling, DRAFTED, last + 1), log_q)

    def step(carry: tuple[Caches, Array], number: Array) -> tuple[tuple[Caches, Array], Any]:
        cache, token = carry
        cache, made = read(cache, token[:, None], text.last + number)
        return (cache, made[0]), made

    cache, made = read(cache, text.newest(first), text.last)
    (cache, _), more = lax.scan(step, (cache, made[0]), jnp.arange(1, count))
    tokens = jnp.concatenate([made[0][None], more[0]]).T
    if made[1] is None:
        return Proposal(tokens), cache
    return Proposal(tokens, jnp.concatenate([made[1][None], more[1]]).swapaxes(0, 1)), cache
