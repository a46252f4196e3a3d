"""Jitted programs of speculative decoding: the whole loop, or what one turn consists of.

Parameters and caches are :class:`engines.transformer.speculation.propose.Both`; the caches are donated.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from engines.transformer.layers.kv_cache import abstract_cache, cache_specs
from engines.transformer.layers.overlapped_block import compiler_options
from engines.transformer.options import GREEDY, Sampling
from engines.transformer.params.parameters import abstract_parameters, parameter_specs
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import KEPT_LOGITS, logits_spec
from engines.transformer.speculation.options import Speculation
from engines.transformer.speculation.propose import Both, Text, followed, proposing
from engines.transformer.speculation.rejection import Proposal, verdict
from engines.transformer.speculation.turns import Count, Settling, State, all_turns, verifying


def make_speculative_decode(
    plan: Plan, draft: Plan | None, mesh: Mesh, how: Speculation, steps: int, sampling: Sampling = GREEDY
) -> Any:
    """Jitted (parameters, caches, token [batch], prompt [batch, time]) → (ids [steps, batch], logits, caches, count).

    ``token`` follows the prompt, which the caches hold; ``draft`` is the plan of the draft model, if there is one.
    Logits are as those of :func:`engines.transformer.programs.make_decode`, ``count`` is a
    :class:`engines.transformer.speculation.turns.Count`. All turns run in one loop of the program. The caches need no
    reset for a second run.
    """
    settling = Settling(steps=steps, sampling=sampling, forced=how.forced)
    propose = proposing(plan, draft, how, sampling)
    vocab = plan.padded.vocab // plan.axes.size(plan.axes.all)

    def decode(parameters: Both, cache: Both, token: Array, prompt: Array) -> tuple[Array, Array, Both, Count]:
        state = beginning(settling, how, token, prompt, vocab)._replace(cache=cache)
        state = all_turns(plan, settling, propose, parameters, state)
        return generated(settling, state, prompt), state.logits, state.cache, state.counted

    counted: Any = (P(),) * 3
    return _jitted(Both(plan, draft), mesh, decode, 2, (P(), logits_spec(plan, 1)), Count(*counted))


def beginning(settling: Settling, how: Speculation, token: Array, prompt: Array, vocab: int) -> State:
    """The state before the first turn, without caches: ``token`` [batch] follows ``prompt`` [batch, time]."""
    batch, time = prompt.shape
    room = jnp.full((batch, settling.steps + how.count + 1), settling.filler, token.dtype)
    text = Text(jnp.concatenate([prompt, token[:, None], room], axis=1), jnp.full(batch, time, jnp.int32))
    last = jnp.zeros((min(settling.steps, KEPT_LOGITS), batch, vocab), jnp.float32)
    return settling.first(text, last)


def generated(settling: Settling, state: State, prompt: Array) -> Array:
    """The tokens [steps, batch] behind the one that followed the prompt."""
    time = prompt.shape[1]
    return state.text.ids[:, time + 1 : time + 1 + settling.steps].T


def make_proposal(plan: Plan, draft: Plan | None, mesh: Mesh, how: Speculation, sampling: Sampling = GREEDY) -> Any:
    """Jitted (parameters, caches, ids [batch, length], last [batch]) → (tokens [batch, count], caches).

    A part of a turn, to be timed by itself: parameters and caches are those of the draft model alone, if there is one.
    """
    propose = proposing(plan, draft, how, sampling)
    held = _proposing_alone(plan, draft)

    def proposed(parameters: Both, cache: Both, ids: Array, last: Array) -> tuple[Array, Both]:
        proposal, cache = propose(parameters, cache, Text(ids, last))
        return proposal.tokens, cache

    return _jitted(held, mesh, proposed, 2, (P(),))


def make_drafting(draft: Plan | None, mesh: Mesh, how: Speculation, sampling: Sampling = GREEDY) -> Any:
    """Jitted (parameters, caches, ids [batch, length], last [batch]) → (the proposal, caches), without the model.

    By a draft model; by the model's first layers, of which ``draft`` is the plan, and parameters and caches are those
    of the model; else by n-grams, with parameters and caches of nothing.
    """
    if draft is None:
        assert how.way == "ngram", "the model's own layers are not at hand"

        def look_up(_parameters: Both, cache: Both, ids: Array, last: Array) -> tuple[Proposal, Both]:
            return Proposal(followed(Text(ids, last), how.count, how.ngram)), cache

        return jax.jit(look_up)
    propose = proposing(draft, draft, how, sampling)

    def drafted(parameters: Both, cache: Both, ids: Array, last: Array) -> tuple[Proposal, Both]:
        return propose(parameters, cache, Text(ids, last))

    specs: Any = (P(), None if sampling.greedy else P(None, None, draft.axes.all or None))
    held = Both(draft, None) if how.way == "self" else Both(None, draft)
    return _jitted(held, mesh, drafted, 2, (Proposal(*specs),))


def make_verdict(plan: Plan, mesh: Mesh, how: Speculation, sampling: Sampling = GREEDY) -> Any:
    """Jitted (parameters, caches, tokens [batch, count + 1], start [batch]) → (kept [batch], next token, caches).

    The other part: one pass over the last token and the proposed ones, and which of them are kept.
    """

    def judged(parameters: Both, cache: Both, tokens: Array, start: Array) -> tuple[Array, Array, Both]:
        scores, cache = verifying(plan, parameters, cache, tokens, start)
        found = verdict(plan, scores, Proposal(tokens[:, 1:]), sampling, start + 1, how.forced)
        return found.kept, found.following, cache

    return _jitted(Both(plan, None), mesh, judged, 2, (P(), P()))


def abstract_turn(plan: Plan, draft: Plan | None, mesh: Mesh, how: Speculation, length: int) -> dict[str, Any]:
    """Arguments of the parts of a turn as shapes: of ``draft`` and of ``verify``, for texts of up to ``length``."""
    whole = NamedSharding(mesh, P())

    def ids(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=whole)

    batch = plan.batch_size
    return {
        "draft": (*abstract_state(_proposing_alone(plan, draft), mesh), ids(batch, length), ids(batch)),
        "verify": (*abstract_state(Both(plan, None), mesh), ids(batch, how.count + 1), ids(batch)),
    }


def abstract_state(plans: Both, mesh: Mesh) -> tuple[Both, Both]:
    """Parameters and caches as shapes, () of a plan that is None."""
    return _each(plans, lambda plan: abstract_parameters(plan, mesh)), _each(
        plans, lambda plan: abstract_cache(plan, mesh)
    )


def _proposing_alone(plan: Plan, draft: Plan | None) -> Both:
    """Whose parameters and caches proposing takes."""
    return Both(plan, None) if draft is None else Both(None, draft)


def _each(plans: Both, of: Callable[[Plan], Any]) -> Both:
    return Both(*(() if plan is None else of(plan) for plan in plans))


def _jitted(
    plans: Both, mesh: Mesh, body: Callable[..., Any], inputs: int, before: tuple[Any, ...], *after: Any
) -> Any:
    """``body`` (parameters, caches, ``inputs`` replicated arrays) → (``before``, caches, ``after``), partitioned."""
    caches = _each(plans, cache_specs)
    mapped = jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(_each(plans, parameter_specs), caches, *[P()] * inputs),
        out_specs=(*before, caches, *after),
        check_vma=False,
    )
    # A donated buffer must keep its format: the caches come out as they went in.
    kept = jax.tree.map(lambda each: each.format, abstract_state(plans, mesh)[1])
    placed = (*[None] * len(before), kept, *[None] * len(after))
    options = compiler_options(plans.model or plans.draft, mesh) or None
    return jax.jit(mapped, donate_argnums=1, out_shardings=placed, compiler_options=options)
