"""What passes layer by layer read: prompts whole, in chunks or of different lengths, a step, what a turn proposes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from engines.transformer.comm.collectives import local_shard
from engines.transformer.forward import output
from engines.transformer.generate.sampling import next_tokens
from engines.transformer.layer_programs import Reading
from engines.transformer.layers.own_positions import OwnPositions
from engines.transformer.layers.positions import Consecutive
from engines.transformer.layers.ragged import Ragged
from engines.transformer.options import Sampling
from engines.transformer.params.tree import Parameters
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import logits_spec
from engines.transformer.speculation.rejection import Proposal
from engines.transformer.speculation.turns import Settling, State, settled

NUMBER = jax.ShapeDtypeStruct((), jnp.int32)


def prompt_reading(plan: Plan, time: int, sampling: Sampling) -> Reading:
    """``time`` tokens behind the plan's prefix at once: ``where`` and ``asked`` are any number.

    Returns (next token, logits).
    """
    start = plan.prefill.prefix
    return _consecutive(plan, time, time, sampling, lambda _: Consecutive(start), drawn_at=start + time)


def chunk_reading(plan: Plan, chunk: int, time: int, sampling: Sampling) -> Reading:
    """``chunk`` of the ``time`` tokens behind the plan's prefix, from ``where`` on; returns what follows the last."""
    return _consecutive(plan, chunk, time, sampling, Consecutive, drawn_at=plan.prefill.prefix + time)


def step_reading(plan: Plan, sampling: Sampling, start: Any) -> Reading:
    """A token of every sequence, at the position ``where``; ``asked`` is the number of the position that is drawn from.

    ``start`` is where the first step begins: a number, or a :class:`engines.transformer.layers.ragged.Ragged`.
    """
    if not isinstance(start, Ragged):
        return _consecutive(plan, 1, plan.cache_len, sampling, Consecutive)
    return _read(
        plan, 1, plan.cache_len, positions=lambda where: where, where=shapes_of(start),
        finish=partial(_last, sampling, None), asked=NUMBER,
    )  # fmt: skip


def ragged_reading(plan: Plan, rows: Any, packing: Any, limit: int, sampling: Sampling) -> Reading:
    """Prompts of up to ``limit`` tokens in ``rows`` [rows, time], padded, or packed by ``packing``, a constant.

    ``asked`` is the place of each prompt's last token in its row, [batch].
    """
    positions = packing or Consecutive(0)
    asked = jax.ShapeDtypeStruct((plan.batch_size,), jnp.int32)
    return _read(
        plan, rows.shape[1], limit, rows=rows.shape[0], positions=lambda _: positions, where=NUMBER,
        finish=partial(_ends, sampling, limit), asked=asked,
    )  # fmt: skip


def proposal_reading(plan: Plan, settling: Settling, state: State, proposal: Proposal, first: int) -> Reading:
    """A turn's last token and those proposed, each sequence from its own ``where`` [batch] on.

    ``asked`` is (the state, the proposal), given here as shapes; returns the state behind the turn. ``first`` is the
    position of the token that followed the prompt.
    """
    states = jax.tree.map(lambda _: P(), state)._replace(logits=logits_spec(plan, 1))
    specs: Any = (P(), None if proposal.log_q is None else P(None, None, plan.axes.all or None))
    proposals = Proposal(*specs)

    def finish(view: Plan, parameters: Parameters, x: Array, asked: tuple[State, Proposal]) -> State:
        before, made = asked
        scores = output(view, parameters, x.reshape(-1, x.shape[-1])).reshape(*made.tokens.shape[:1], x.shape[1], -1)
        return settled(view, settling, before, before.done < settling.steps, made, scores, first)

    return Reading(
        plan=plan,
        rows=plan.batch_size,
        time=proposal.tokens.shape[1] + 1,
        limit=plan.cache_len,
        positions=OwnPositions,
        where=state.done,
        finish=finish,
        asked=(state, proposal),
        asked_specs=(states, proposals),
        outputs=states,
    )


def shapes_of(arguments: Any) -> Any:
    """Arrays → their shapes and dtypes."""
    return jax.tree.map(lambda each: jax.ShapeDtypeStruct(np.shape(each), np.asarray(each).dtype), arguments)


def _consecutive(
    plan: Plan, time: int, limit: int, sampling: Sampling, positions: Any, *, drawn_at: int | None = None
) -> Reading:
    finish = partial(_last, sampling, drawn_at)
    return _read(plan, time, limit, positions=positions, where=NUMBER, finish=finish, asked=NUMBER)


def _read(plan: Plan, time: int, limit: int, *, rows: int | None = None, **parts: Any) -> Reading:
    outputs = (P(), P(None, plan.axes.all or None))
    return Reading(
        plan=plan, rows=rows or plan.batch_size, time=time, limit=limit, asked_specs=P(), outputs=outputs, **parts
    )


def _last(
    sampling: Sampling, drawn_at: int | None, plan: Plan, parameters: Parameters, x: Array, asked: Array
) -> tuple[Array, Array]:
    """(next token [batch], logits [batch, vocab]) of the last token of every row."""
    scores = output(plan, parameters, x[:, -1])
    return next_tokens(plan, scores, sampling, asked + 1 if drawn_at is None else drawn_at), scores


def _ends(
    sampling: Sampling, limit: int, plan: Plan, parameters: Parameters, x: Array, last: Array
) -> tuple[Array, Array]:
    """Likewise, of the token at ``last`` of every sequence."""
    mine = local_shard(last, plan.axes.batch, 0, plan.axes.size(plan.axes.batch))
    ends = x[jnp.arange(mine.size) // (mine.size // x.shape[0]), mine]
    scores = output(plan, parameters, ends)
    return next_tokens(plan, scores, sampling, limit), scores
