"""The loop over turns: propose, verify in one pass, keep; until every sequence has its tokens."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.forward import hidden_states, output
from engines.transformer.layers.own_positions import OwnPositions
from engines.transformer.options import Sampling
from engines.transformer.partition.plan import Plan
from engines.transformer.speculation.propose import Both, Propose, Text
from engines.transformer.speculation.rejection import verdict


class Count(NamedTuple):
    """Of each sequence, [batch]: its turns, how many proposed tokens were judged in them, and how many were kept.

    A token behind the first that is not kept is not judged.
    """

    turns: Array
    judged: Array
    kept: Array


class State(NamedTuple):
    """``done`` [batch]: tokens that a sequence has; ``logits`` [kept, batch, vocab.all]: those of the last of them."""

    cache: Both
    text: Text
    done: Array
    logits: Array
    counted: Count


def verifying(plan: Plan, parameters: Both, cache: Both, tokens: Array, start: Array) -> tuple[Array, Both]:
    """Logits [batch, time, vocab.all] behind each of ``tokens`` [batch, time], which begin at ``start`` [batch]."""
    x, written = hidden_states(plan, parameters.model, cache.model, tokens, OwnPositions(start), limit=plan.cache_len)
    scores = output(plan, parameters.model, x.reshape(-1, x.shape[-1]))
    return scores.reshape(*tokens.shape, -1), cache._replace(model=written)


def all_turns(
    plan: Plan,
    propose: Propose,
    parameters: Both,
    cache: Both,
    text: Text,
    steps: int,
    logits: Array,
    sampling: Sampling,
    forced: float | None,
) -> State:
    """Turns until every sequence has ``steps`` tokens behind ``text``, whose ids have room for a turn more.

    ``logits``: zeros [kept, batch, vocab.all]. A sequence that has all of its tokens waits for the others.
    """
    first = text.last

    def goes_on(state: State) -> Array:
        return (state.done < steps).any()

    def turn(state: State) -> State:
        active = state.done < steps
        proposal, cache = propose(parameters, state.cache, state.text)
        proposed, last = proposal.tokens, state.text.last
        tokens = jnp.concatenate([state.text.newest(1), proposed], axis=1)
        scores, cache = verifying(plan, parameters, cache, tokens, last)
        kept, following = verdict(plan, scores, proposal, sampling, last + 1, forced)
        number = jnp.arange(tokens.shape[1])
        new = jnp.where(number < kept[:, None], jnp.pad(proposed, ((0, 0), (0, 1))), following[:, None])
        # Beyond the end, where it has no effect, of a sequence that has all of its tokens.
        at = jnp.where(active[:, None], last[:, None] + 1 + number, state.text.ids.shape[1] + number)
        ids = state.text.ids.at[jnp.arange(at.shape[0])[:, None], at].set(new, mode="drop", unique_indices=True)
        judged = jnp.minimum(kept + 1, proposed.shape[1])
        more = Count(jnp.ones_like(judged), judged, kept)
        counted = Count(*(old + jnp.where(active, each, 0) for old, each in zip(state.counted, more, strict=True)))
        logits = _last_logits(state.logits, scores, steps, state.done, kept)
        done = jnp.minimum(state.done + kept + 1, steps)
        return State(cache, Text(ids, first + jnp.minimum(done, steps - 1)), done, logits, counted)

    none = jnp.zeros_like(text.last)
    return lax.while_loop(goes_on, turn, State(cache, text, none, logits, Count(none, none, none)))


def _last_logits(held: Array, scores: Array, steps: int, done: Array, kept: Array) -> Array:
    """``held`` with the logits of this turn's tokens that are among the last ``held.shape[0]`` of ``steps``."""
    number = jnp.arange(steps - held.shape[0], steps)[:, None] - done
    mine = (number >= 0) & (number <= kept)
    found = jnp.take_along_axis(scores, jnp.clip(number, 0, scores.shape[1] - 1).T[..., None], axis=1).swapaxes(0, 1)
    return jnp.where(mine[..., None], found, held)
