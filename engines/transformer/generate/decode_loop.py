"""The loop over decode steps, in one compiled program, without returning to the host."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.layers.kv_cache import Caches

Step = Callable[[Caches, Array, Array], tuple[Caches, Array, Array]]
"""(cache, token [batch], number of the step) → (cache, logits [batch, vocab], next token [batch])."""


def every_step(step: Step, cache: Caches, token: Array, last: Array, steps: int) -> tuple[Array, Array, Caches]:
    """``steps`` of ``step`` → (tokens [steps, batch], logits of the last steps, cache).

    ``last``: zeros [kept, batch, vocab], for the logits of the last ``kept`` steps.
    """
    kept = last.shape[0]

    def scanned(carry: tuple[Caches, Array, Array], number: Array) -> tuple[tuple[Caches, Array, Array], Array]:
        cache, token, last = carry
        cache, scores, token = step(cache, token, number)
        # All earlier steps write to index 0, which the first of the kept steps then overwrites.
        last = lax.dynamic_update_slice(last, scores[None], (jnp.maximum(number - (steps - kept), 0), 0, 0))
        return (cache, token, last), token

    (cache, _, last), tokens = lax.scan(scanned, (cache, token, last), jnp.arange(steps))
    return tokens, last, cache


def until_stopped(
    step: Step, cache: Caches, token: Array, last: Array, steps: int, stop_token: int
) -> tuple[Array, Array, Caches, Array]:
    """As :func:`every_step`, and the number of steps that ran: all, or those until every sequence has stopped.

    A sequence has stopped once it has produced ``stop_token``, even as ``token`` itself; from then on it produces only
    that. If fewer steps ran than logits are kept, the first of them are zeros.
    """
    kept = last.shape[0]
    State = tuple[Array, Caches, Array, Array, Array]

    def goes_on(state: State) -> Array:
        number, _, token, _, _ = state
        return (number < steps) & (token != stop_token).any()

    def body(state: State) -> State:
        number, cache, before, tokens, last = state
        cache, scores, token = step(cache, before, number)
        token = jnp.where(before == stop_token, stop_token, token)
        tokens = lax.dynamic_update_slice(tokens, token[None], (number, 0))
        # The last step is not known in advance: the logits are a circular buffer.
        last = lax.dynamic_update_slice(last, scores[None], (number % kept, 0, 0))
        return number + 1, cache, token, tokens, last

    tokens = jnp.full((steps, token.shape[0]), stop_token, token.dtype)
    ran, cache, _, tokens, last = lax.while_loop(goes_on, body, (jnp.int32(0), cache, token, tokens, last))
    return tokens, jnp.roll(last, -(ran % kept), axis=0), cache, ran
