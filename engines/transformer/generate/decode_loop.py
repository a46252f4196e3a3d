"""The loop over decode steps, in one compiled program with no word to the host in between."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.layers.kv_cache import Cache

Step = Callable[[Cache, Array, Array], tuple[Cache, Array, Array]]
"""(cache, token [batch], number of the step) → (cache, logits [batch, vocab], next token [batch])."""


def every_step(step: Step, cache: Cache, token: Array, last: Array, steps: int) -> tuple[Array, Array, Cache]:
    """``steps`` of ``step`` → (tokens [steps, batch], logits of the last steps, cache).

    ``last``: zeros [kept, batch, vocab], where the logits of the last ``kept`` steps go.
    """
    kept = last.shape[0]

    def scanned(carry: tuple[Cache, Array, Array], number: Array) -> tuple[tuple[Cache, Array, Array], Array]:
        cache, token, last = carry
        cache, scores, token = step(cache, token, number)
        # Earlier steps all land in the first place, which the first kept step then takes.
        last = lax.dynamic_update_slice(last, scores[None], (jnp.maximum(number - (steps - kept), 0), 0, 0))
        return (cache, token, last), token

    (cache, _, last), tokens = lax.scan(scanned, (cache, token, last), jnp.arange(steps))
    return tokens, last, cache


def until_stopped(
    step: Step, cache: Cache, token: Array, last: Array, steps: int, stop_token: int
) -> tuple[Array, Array, Cache, Array]:
    """As :func:`every_step`, and the number of steps that ran: all, or as many as until every sequence had stopped.

    A sequence has stopped once it has produced ``stop_token``, if that is ``token`` itself; from then on that is all
    that it produces. Logits of steps before the first that ran are zeros.
    """
    kept = last.shape[0]
    State = tuple[Array, Cache, Array, Array, Array]

    def goes_on(state: State) -> Array:
        number, _, token, _, _ = state
        return (number < steps) & (token != stop_token).any()

    def body(state: State) -> State:
        number, cache, before, tokens, last = state
        cache, scores, token = step(cache, before, number)
        token = jnp.where(before == stop_token, stop_token, token)
        tokens = lax.dynamic_update_slice(tokens, token[None], (number, 0))
        # Where the loop will end is not known: the kept steps take turns.
        last = lax.dynamic_update_slice(last, scores[None], (number % kept, 0, 0))
        return number + 1, cache, token, tokens, last

    tokens = jnp.full((steps, token.shape[0]), stop_token, token.dtype)
    ran, cache, _, tokens, last = lax.while_loop(goes_on, body, (jnp.int32(0), cache, token, tokens, last))
    return tokens, jnp.roll(last, -(ran % kept), axis=0), cache, ran
