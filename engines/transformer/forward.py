"""Token ids to logits, inside ``shard_map``."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.core.layer_kind import LayerKind
from engines.core.rotary import Rotary
from engines.transformer.layers.attention import LayerContext
from engines.transformer.layers.block import layer
from engines.transformer.layers.embedding import embed, logits
from engines.transformer.layers.host_cache import arrived, returned
from engines.transformer.layers.kv_cache import Cache, Caches, held_positions
from engines.transformer.layers.norm import norm
from engines.transformer.layers.positions import Consecutive, Positions
from engines.transformer.layers.rope import RopeAngles, rope_angles
from engines.transformer.layers.sequence_attention import reads_whole_prompt
from engines.transformer.layers.stripes import own_ids
from engines.transformer.params.tree import (
    LayerParameters,
    Parameters,
    fetched,
    layer_parameters,
    only_layer,
    scan_inputs,
)
from engines.transformer.partition.constraint import constrain, residual
from engines.transformer.partition.plan import Plan
from engines.transformer.partition.stacks import Turn

Contexts = Mapping[LayerKind, LayerContext]
"""What the layers of each kind need."""


def forward(
    plan: Plan, parameters: Parameters, cache: Caches, tokens: Array, positions: Positions, *, limit: int
) -> tuple[Array, Caches]:
    """Logits [batch, vocab.all] (float32) of the last of ``tokens`` [batch, time], and the cache with all of them.

    Every chip gets all token ids. ``limit`` (static) is the number of cached positions that attention reads.
    """
    x, cache = hidden_states(plan, parameters, cache, tokens, positions, limit=limit)
    return output(plan, parameters, x[:, -1]), cache


def output(plan: Plan, parameters: Parameters, x: Array) -> Array:
    """The last layer's output, [batch.batch, E.residual] → logits [batch, vocab.all]."""
    normed = norm(plan, parameters.final_norm, constrain(plan, x, residual))
    with jax.named_scope("head"):
        return logits(plan, parameters, normed)


def hidden_states(
    plan: Plan, parameters: Parameters, cache: Caches, tokens: Array, positions: Positions, *, limit: int
) -> tuple[Array, Caches]:
    """The last layer's output, [batch.batch, time, E.residual], and the cache, as :func:`forward`.

    ``tokens`` may also be rows of packed sequences; ``positions`` then say where each sequence begins.
    """
    time = tokens.shape[1]
    here = positions.shard(plan, plan.axes.sequence).ids(time)
    with jax.named_scope("embedding"):
        x = embed(plan, parameters, tokens, positions)
    contexts = contexts_of(plan, positions, here, time, limit)
    written: list[Cache] = []
    for turn in plan.loops:
        own = slice(len(written), len(written) + len(turn))
        run = _once if plan.unrolled else _in_a_loop
        x, kept = run(plan, turn, parameters.layers[own], cache[own], x, contexts)
        written += kept
    return x.reshape(-1, time, x.shape[-1]), tuple(written)


def contexts_of(plan: Plan, positions: Positions, here: Array, time: int, limit: int) -> Contexts:
    """What layers need to know of ``time`` new tokens a sequence, which stand ``here``."""
    if plan.axes.positions and not plan.model.attention.is_latent and reads_whole_prompt(positions, time, limit):
        here = own_ids(plan, time)
    turned: dict[Rotary, RopeAngles | None] = {}
    contexts = {}
    for kind in dict.fromkeys(plan.model.layer_kinds):
        rotary = plan.model.rotary(kind, plan.text_len)
        if rotary not in turned:
            turned[rotary] = rope_angles(plan.model, here, kind, plan.text_len)
        contexts[kind] = LayerContext(kind, 0, positions, limit, time, turned[rotary])
    return contexts


def _in_a_loop(
    plan: Plan, turn: Turn, layers: tuple[LayerParameters, ...], caches: Caches, x: Array, contexts: Contexts
) -> tuple[Array, Caches]:
    """x through all layers of some stacks: a program of one layer of each, whatever their number."""

    def step(carry: tuple[Array, Caches], each: tuple[Any, tuple[LayerParameters, ...]]) -> Any:
        (x, caches), (number, vectors) = carry, each
        written = []
        for stack, own, matrices, cache in zip(turn, vectors, layers, caches, strict=True):
            if plan.offloads:
                one = layer_parameters(own, fetched(matrices, number), 0)
            else:
                one = layer_parameters(own, matrices, number)
            context = contexts[stack.kind]._replace(layer=number)
            run = _with_its_cache if plan.offloads_kv else layer
            x, kept = run(plan, one, x, cache, context)
            written.append(kept)
        return (x, tuple(written)), None

    turns = (jnp.arange(len(turn[0].numbers)), tuple(map(scan_inputs, layers)))
    (x, caches), _ = lax.scan(step, (x, caches), turns)
    return x, caches


def _with_its_cache(
    plan: Plan, one: LayerParameters, x: Array, cache: Cache, context: LayerContext
) -> tuple[Array, Cache]:
    """A layer whose part of the cache comes from host memory for it."""
    held, number, here = held_positions(plan, context.kind), context.layer, context.positions
    assert isinstance(here, Consecutive)
    empty = reads_whole_prompt(here, context.time, context.limit)
    x, kept = layer(plan, one, x, arrived(cache, number, held, empty=empty), context._replace(layer=0))
    return x, returned(cache, kept, number, held, here.start, context.time)


def _once(
    plan: Plan, turn: Turn, layers: tuple[LayerParameters, ...], caches: Caches, x: Array, contexts: Contexts
) -> tuple[Array, Caches]:
    """x through a layer that has arrays of its own: a TPU fetches the next ones while a layer waits or computes."""
    (stack,), (one,), (cache,) = turn, layers, caches
    one = fetched(one, 0) if plan.offloads else one
    x, kept = layer(plan, only_layer(one), x, cache, contexts[stack.kind])
    return x, (kept,)
