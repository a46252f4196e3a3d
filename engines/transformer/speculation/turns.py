"""The loop over turns: propose, verify in one pass, keep; until every sequence has its tokens."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.forward import hidden_states, output
from engines.transformer.layers.own_positions import OwnPositions
from engines.transformer.options import Sampling
from engines.transformer.partition.plan import Plan
from engines.transformer.speculation.propose import Both, Propose, Text
from engines.transformer.speculation.rejection import Proposal, verdict


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """Until when turns go on, and how their tokens are chosen: until every sequence has ``steps`` tokens.

    With ``sampling``'s stop token a sequence that has produced it has all of its tokens, those behind it the same.
    """

    steps: int
    sampling: Sampling
    forced: float | None = None

    @property
    def filler(self) -> int:
        """The token at positions that no turn has come to."""
        return self.sampling.stop_token or 0

    def first(self, text: Text, logits: Array, cache: Both = Both((), ())) -> State:  # noqa: B008
        """The state before the first turn. ``logits``: zeros [kept, batch, vocab]."""
        none = jnp.zeros_like(text.last)
        done = none
        if self.sampling.stop_token is not None:
            done = jnp.where(text.newest(1)[:, 0] == self.sampling.stop_token, self.steps, 0)
        return State(cache, text, done, logits, Count(none, none, none))


def all_turns(plan: Plan, settling: Settling, propose: Propose, parameters: Both, state: State) -> State:
    """Turns until every sequence has its tokens behind the ``state``'s text, whose ids have room for a turn more.

    A sequence that has all of its tokens waits for the others.
    """
    first = state.text.last

    def goes_on(state: State) -> Array:
        return (state.done < settling.steps).any()

    def turn(state: State) -> State:
        active = state.done < settling.steps
        proposal, cache = propose(parameters, state.cache, state.text)
        tokens = jnp.concatenate([state.text.newest(1), proposal.tokens], axis=1)
        scores, cache = verifying(plan, parameters, cache, tokens, state.text.last)
        return settled(plan, settling, state._replace(cache=cache), active, proposal, scores, first)

    return lax.while_loop(goes_on, turn, state)


def settled(
    plan: Plan, settling: Settling, state: State, active: Array, proposal: Proposal, scores: Array, first: Any
) -> State:
    """The state behind a turn of the ``active`` sequences [batch]. ``scores``: [batch, γ + 1, vocab.all].

    Inside ``shard_map``. ``first``: the position of the token that followed the prompt.
    """
    steps, stop_token = settling.steps, settling.sampling.stop_token
    proposed, last = proposal.tokens, state.text.last
    kept, following = verdict(plan, scores, proposal, settling.sampling, last + 1, settling.forced)
    number = jnp.arange(proposed.shape[1] + 1)
    new = jnp.where(number < kept[:, None], jnp.pad(proposed, ((0, 0), (0, 1))), following[:, None])
    writes, stopped = active[:, None], None
    if stop_token is not None:
        # Behind the stop token nothing is written: the text holds it there already.
        stops = (new == stop_token) & (number <= kept[:, None])
        stopped = stops.any(axis=1)
        writes = writes & (number <= jnp.where(stopped, stops.argmax(axis=1), kept)[:, None])
    # Beyond the end, where it has no effect, of a sequence that has all of its tokens.
    at = jnp.where(writes, last[:, None] + 1 + number, state.text.ids.shape[1] + number)
    ids = state.text.ids.at[jnp.arange(at.shape[0])[:, None], at].set(new, mode="drop", unique_indices=True)
    judged = jnp.minimum(kept + 1, proposed.shape[1])
    more = Count(jnp.ones_like(judged), judged, kept)
    counted = Count(*(old + jnp.where(active, each, 0) for old, each in zip(state.counted, more, strict=True)))
    logits = _last_logits(state.logits, scores, steps, state.done, kept)
    done = jnp.minimum(state.done + kept + 1, steps)
    if stopped is not None:
        done = jnp.where(stopped, steps, done)
    return State(state.cache, Text(ids, first + jnp.minimum(done, steps - 1)), done, logits, counted)


def _last_logits(held: Array, scores: Array, steps: int, done: Array, kept: Array) -> Array:
    """``held`` with the logits of this turn's tokens that are among the last ``held.shape[0]`` of ``steps``."""
    number = jnp.arange(steps - held.shape[0], steps)[:, None] - done
    mine = (number >= 0) & (number <= kept)
    found = jnp.take_along_axis(scores, jnp.clip(number, 0, scores.shape[1] - 1).T[..., None], axis=1).swapaxes(0, 1)
    return jnp.where(mine[..., None], found, held)
