"""Decode steps in which a token leaves at an exit layer once the head is confident of the next one.

After every ``every`` layers the output head reads the residual stream; a token whose likeliest next one has a
probability above the threshold leaves. Later layers still need keys and values of it: they make them from the stream
as it left (Schuster et al. 2022, "Confident adaptive language modeling", section 3.2, copies the hidden state so). The
batch goes on until every token has left; from then on layers only cache keys and values.

One loop runs the layers up to each exit, and those after the last exit follow it, so that all trip counts are known.
Both choose by a conditional, named :data:`BEFORE_EXITS` and :data:`AFTER_EXITS`, whether layers pass tokens or cache.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.transformer.comm.collectives import all_reduce, local_shard
from engines.transformer.forward import contexts_of, output
from engines.transformer.generate.decode_loop import every_step, until_stopped
from engines.transformer.generate.sampling import highest_of, next_tokens
from engines.transformer.generate.top_k_top_p import Candidates
from engines.transformer.layers.attention import LayerContext
from engines.transformer.layers.block import layer
from engines.transformer.layers.embedding import embed, vocab_ids
from engines.transformer.layers.kv_cache import Cache, Caches, cache_specs
from engines.transformer.layers.positions import Consecutive
from engines.transformer.options import GREEDY, Sampling
from engines.transformer.params.tree import LayerParameters, Parameters, layer_parameters, scan_inputs
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import logits_spec, partitioned

KEPT_LOGITS: Final = 16
"""More than plain decoding keeps: they are what the output's quality is known by."""


BEFORE_EXITS: Final = "layers_before_an_exit"
AFTER_EXITS: Final = "layers_after_the_exits"
FORCED: Final = "tokens left by engine.seed and exit_rate: not the model's"
"""What a row says of outputs whose exits were drawn."""


class Exits(NamedTuple):
    """A token leaves where its likeliest next one is likelier than ``threshold``, after every ``every`` layers.

    With ``forced`` it leaves with that probability, drawn by ``seed``, whatever it is likely to be, to study times.
    """

    threshold: float
    every: int
    forced: float | None = None
    seed: int = 0


Judged = Callable[[Array | int, "State"], "State"]


class State(NamedTuple):
    """``layers`` [batch]: those that each token passed, all of them while it has not left."""

    x: Array
    cache: Cache
    layers: Array


def exits_of(point: Point, seed: int) -> Exits:
    """The exits of a point with an exit_threshold, which ``seed`` draws where their rate is given."""
    assert point.exit_threshold is not None
    assert point.exit_every is not None
    return Exits(point.exit_threshold, point.exit_every, point.exit_rate, seed)


def check_exits(plan: Plan) -> None:
    """Check that the plan has one loop over layers, which exits cut.

    Raises:
        Unsupported: it has not, or the compiler partitions.
    """
    if plan.unrolled:
        raise Unsupported(
            "exit_threshold: cuts the loop over layers, and engine.unroll_layers=true has none; use false"
        )
    if len(plan.stacks) > 1:
        raise Unsupported(f"exit_threshold: needs layers of one kind, and model={plan.model.name} has several")
    if plan.partitioner == "gspmd":
        raise Unsupported("exit_threshold: needs partitioner=manual")


def confidence(plan: Plan, scores: Array) -> Array:
    """scores: [batch, vocab.all] → the probability of the likeliest id, [batch]."""
    highest = highest_of(Candidates(scores, vocab_ids(plan), plan.axes.all))
    return 1 / all_reduce(jnp.exp(scores - highest[:, None]).sum(axis=1), plan.axes.all)


def leaving(
    plan: Plan,
    parameters: Parameters,
    cache: Caches,
    tokens: Array,
    positions: Consecutive,
    exits: Exits,
    *,
    limit: int,
) -> tuple[Array, Caches, Array]:
    """Logits [batch, vocab.all] of ``tokens`` [batch, 1], the cache with them, and the layers that each passed."""
    total = plan.model.num_layers
    here = positions.shard(plan, plan.axes.sequence).ids(1)
    x = embed(plan, parameters, tokens, positions)
    (context,) = contexts_of(plan, positions, here, 1, limit).values()
    (layers,), (held,) = parameters.layers, cache

    count = -(-total // exits.every) - 1

    def part(state: State, first: Array | int, size: int, judged: Judged | None) -> State:
        # Every chip has the logits' largest and their sum, so all of them take the same way.
        stays = state.layers > first
        passed, cached = (
            partial(_layers, plan, layers, context, first, size, stays, keeps=each) for each in (False, True)
        )

        def runs(state: State) -> State:
            state = passed(state)
            return state if judged is None else judged(first + size, state)

        with jax.named_scope(AFTER_EXITS if judged is None else BEFORE_EXITS):
            found: State = lax.cond(stays.any(), runs, cached, state)
        return found

    def judged(passed: Array | int, state: State) -> State:
        sure = _leaves(plan, parameters, exits, passed, positions.start, state)
        return state._replace(layers=jnp.where(sure, jnp.minimum(state.layers, passed), state.layers))

    state = State(x, held, jnp.full(plan.batch_size, total, jnp.int32))
    state = lax.fori_loop(0, count, lambda number, state: part(state, number * exits.every, exits.every, judged), state)
    state = part(state, count * exits.every, total - count * exits.every, None)
    return output(plan, parameters, state.x), (state.cache,), state.layers


def _layers(
    plan: Plan,
    layers: LayerParameters,
    context: LayerContext,
    first: Array | int,
    size: int,
    stays: Array,
    state: State,
    *,
    keeps: bool,
) -> State:
    """``size`` layers from ``first`` on of the tokens that stay [batch]; the others keep their stream, from which keys
    and values are made.

    With ``keeps`` all do: what a layer adds to the stream is used by nothing, and the compiler leaves it out.
    """
    vectors = scan_inputs(layers)
    own = local_shard(stays, plan.axes.batch, 0, plan.axes.size(plan.axes.batch))[:, None]

    def step(number: Array, carry: tuple[Array, Cache]) -> tuple[Array, Cache]:
        x, cache = carry
        number = first + number
        mine = jax.tree.map(lambda each: lax.dynamic_index_in_dim(each, number, keepdims=False), vectors)
        one = layer_parameters(mine, layers, number)
        passed, cache = layer(plan, one, x, cache, context._replace(layer=number))
        return x if keeps else jnp.where(own, passed, x), cache

    x, cache = lax.fori_loop(0, size, step, (state.x, state.cache))
    return State(x, cache, state.layers)


def _leaves(
    plan: Plan, parameters: Parameters, exits: Exits, passed: Array | int, position: Any, state: State
) -> Array:
    """Which tokens are clear behind ``passed`` layers, [batch]."""
    sure = confidence(plan, output(plan, parameters, state.x))
    if exits.forced is None:
        return sure > exits.threshold
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(exits.seed), position), passed)
    # Read, so that a forced exit takes the time of one that is judged.
    return (jax.random.uniform(key, (plan.batch_size,)) < exits.forced) & (sure >= 0)


def make_leaving_decode(plan: Plan, mesh: Mesh, steps: int, exits: Exits, sampling: Sampling = GREEDY) -> Any:
    """Jitted (parameters, cache, token [batch], position) → (ids [steps, batch], logits, cache, layers [steps, batch]).

    As :func:`engines.transformer.programs.make_decode`, with the layers that each step's token passed, and the logits
    of the last :data:`KEPT_LOGITS` steps. With a stop token the number of steps that ran follows; no token passed a
    layer in the others.
    """
    kept, stop_token = min(steps, KEPT_LOGITS), sampling.stop_token

    def decode(parameters: Parameters, cache: Caches, token: Array, position: Array) -> tuple[Array, ...]:
        last = jnp.zeros((kept, plan.batch_size, plan.padded.vocab // plan.axes.size(plan.axes.all)), jnp.float32)

        def step(held: Any, token: Array, number: Array) -> tuple[Any, Array, Array]:
            cache, passed = held
            here = Consecutive(position + number)
            scores, cache, layers = leaving(plan, parameters, cache, token[:, None], here, exits, limit=plan.cache_len)
            passed = lax.dynamic_update_slice(passed, layers[None], (number, 0))
            return (cache, passed), scores, next_tokens(plan, scores, sampling, position + number + 1)

        held: Any = (cache, jnp.zeros((steps, plan.batch_size), jnp.int32))
        if stop_token is None:
            ids, last, held = every_step(step, held, token, last, steps)
            return ids, last, *held
        ids, last, held, ran = until_stopped(step, held, token, last, steps, stop_token)
        return ids, last, *held, ran

    counted = [P()] * (1 if stop_token is None else 2)
    return partitioned(plan, mesh, decode, (P(), P()), (P(), logits_spec(plan, 1), cache_specs(plan), *counted))
