"""Steps whose layers come one by one: as the programs of :mod:`engines.transformer.programs`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engines.jax.arrays import replicated
from engines.jax.offload.stream import CompiledPass, Stream
from engines.jax.programs import Programs
from engines.jax.prompt_batch import Prompts
from engines.jax.work import Work
from engines.transformer.layer_programs import Reading, make_layer_pass
from engines.transformer.layer_readings import step_reading
from engines.transformer.layers.ragged import Ragged
from engines.transformer.programs import KEPT_LOGITS


def step_readings(work: Work, prompts: Prompts) -> dict[str, Reading]:
    """That of a step."""
    return {"decode": step_reading(work.plan, work.sampling, prompts.position)}


def texts_of(work: Work, readings: dict[str, Reading]) -> dict[str, str]:
    """The StableHLO of all programs."""
    return {
        f"{name} {part}": program.lower(*made.arguments[part]).as_text()
        for name, reading in readings.items()
        for made in [make_layer_pass(work.plan, work.mesh, reading)]
        for part, program in made.programs()
    }


def compiled(work: Work, programs: Programs, readings: dict[str, Reading], timed: bool) -> dict[str, CompiledPass]:
    """The passes, compiled."""
    return {
        name: CompiledPass.of(programs, name, reading, make_layer_pass(work.plan, work.mesh, reading), timed)
        for name, reading in readings.items()
    }


def streamed_steps(work: Work, stream: Stream, programs: Programs, prompts: Prompts) -> Callable[..., tuple[Any, ...]]:
    """As :func:`engines.transformer.programs.make_decode`'s program, given no layers."""
    (made,) = compiled(work, programs, step_readings(work, prompts), True).values()
    steps, stop_token, begins = work.point.decode_steps, work.settings.stop_token, prompts.position
    ragged = isinstance(begins, Ragged)
    wheres = [begins.later(step) if ragged else np.asarray(begins + step) for step in range(steps)]
    placed = [jax.tree.map(lambda each: replicated(work.mesh, np.asarray(each, np.int32)), where) for where in wheres]
    drawn = [number_of(work, work.plan.cache_len - steps + step) for step in range(steps)] if ragged else placed
    kept = min(steps, KEPT_LOGITS)

    def decode(resident: Any, caches: Any, token: Any, _start: Any) -> tuple[Any, ...]:
        tokens, last = [token], list[Any]()
        with stream.opened(steps, caches) as run:
            for step in range(steps):
                if stop_token is not None and (np.asarray(tokens[-1]) == stop_token).all():
                    break
                first = np.asarray(begins.position + step) if ragged else int(begins) + step
                where, asked = placed[step], drawn[step]
                following, scores = run.forward(made, resident, tokens[-1][:, None], where, asked, first=first)
                if stop_token is not None:
                    following = jnp.where(tokens[-1] == stop_token, stop_token, following)
                tokens.append(following)
                last = [*last, scores][-kept:]
        ran, held = len(tokens) - 1, run.coming.held()
        if stop_token is None:
            return jnp.stack(tokens[1:]), jnp.stack(last), held
        filled = [jnp.full_like(token, stop_token)] * (steps - ran)
        blank = [jnp.zeros((work.plan.batch_size, work.plan.padded.vocab), jnp.float32)] * (kept - len(last))
        return jnp.stack([*tokens[1:], *filled]), jnp.stack([*blank, *last]), held, number_of(work, ran)

    return decode


def number_of(work: Work, value: int) -> Any:
    """A number on all devices."""
    return replicated(work.mesh, np.asarray(value, np.int32))
