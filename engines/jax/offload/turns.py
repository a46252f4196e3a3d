"""Turns of speculative decoding whose layers come one by one: a pass, the costly part, yields several tokens."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from engines.jax.offload.decode import compiled, texts_of
from engines.jax.offload.stream import Stream
from engines.jax.programs import Programs
from engines.jax.work import Work
from engines.transformer.layer_programs import Reading
from engines.transformer.layer_readings import proposal_reading
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import abstract_arguments
from engines.transformer.speculation.first_layers import first_layers
from engines.transformer.speculation.options import Speculation
from engines.transformer.speculation.programs import abstract_state, beginning, generated, make_drafting
from engines.transformer.speculation.propose import Both
from engines.transformer.speculation.turns import Settling


@dataclass(frozen=True, slots=True)
class _Turn:
    """Jitted programs with their arguments as shapes, by name, and what is read layer by layer."""

    programs: dict[str, tuple[Any, tuple[Any, ...]]]
    reading: Reading


def turn_texts(work: Work, how: Speculation, draft: Plan | None) -> dict[str, str]:
    """The StableHLO of all programs of a turn."""
    turn = _turn(work, how, draft)
    alone = {name: program.lower(*arguments).as_text() for name, (program, arguments) in turn.programs.items()}
    return alone | texts_of(work, {"decode": turn.reading})


def streamed_turns(
    work: Work, how: Speculation, draft: Plan | None, stream: Stream, programs: Programs
) -> Callable[..., tuple[Any, ...]]:
    """As :func:`engines.transformer.speculation.programs.make_speculative_decode`'s program, given no layers.

    A turn is one pass over the layers that come; the first ones stay on the devices where they propose. How many turns
    there are is known once they have run: a few layers of one that does not come are fetched.
    """
    turn, steps = _turn(work, how, draft), work.point.decode_steps
    calls = {name: programs.add(name, *of, True) for name, of in turn.programs.items()}
    (verify,) = compiled(work, programs, {"decode": turn.reading}, True).values()
    settling, count, by_itself = _settling(work, how), work.point.staying_layers, how.way == "self"

    def decode(parameters: Both, caches: Both, token: Any, prompt: Any) -> tuple[Any, ...]:
        state = calls["decode begin"](token, prompt)
        alone, cache = Both((), parameters.draft), Both((), caches.draft)
        if by_itself:
            alone = Both(replace(parameters.model, layers=tuple(stream.layers.first[:count])))
        with stream.opened(steps, caches.model) as run:
            while (np.asarray(state.done) < steps).any():
                if by_itself:
                    cache = Both(run.coming.held()[:count])
                proposal, cache = calls["decode propose"](alone, cache, state.text.ids, state.text.last)
                run.coming.hold(cache.model)
                tokens = jnp.concatenate([state.text.newest(1), proposal.tokens], axis=1)
                last = state.text.last
                asked, first = (state, proposal), np.asarray(last)
                state = run.forward(verify, parameters.model, tokens, last, asked, first=first)
        made = generated(settling, state, prompt)
        return made, state.logits, Both(run.coming.held(), cache.draft), state.counted

    return decode


def _settling(work: Work, how: Speculation) -> Settling:
    return Settling(steps=work.point.decode_steps, sampling=work.sampling, forced=how.forced)


def _turn(work: Work, how: Speculation, draft: Plan | None) -> _Turn:
    plan, mesh, settling = work.plan, work.mesh, _settling(work, how)
    arguments = abstract_arguments(plan, mesh, work.point.input_len)
    first, prompt = arguments["decode"][2], arguments["prefill"][2]
    begin = partial(beginning, settling, how, vocab=plan.padded.vocab)
    state = jax.eval_shape(begin, first, prompt)
    by_itself = how.way == "self"
    proposer = first_layers(plan, how.layers) if by_itself else draft
    propose = make_drafting(proposer, mesh, how, work.sampling)
    texts = [jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=first.sharding) for each in state.text]
    proposing = (*abstract_state(Both(proposer, None) if by_itself else Both(None, proposer), mesh), *texts)
    proposal, _ = jax.eval_shape(propose, *proposing)
    reading = proposal_reading(plan, settling, state, proposal, work.point.input_len)
    placed = jax.tree.map(lambda spec: NamedSharding(mesh, spec), reading.asked_specs[0])
    programs = {
        "decode begin": (jax.jit(begin, out_shardings=placed), (first, prompt)),
        "decode propose": (propose, proposing),
    }
    return _Turn(programs, reading)
