"""Token ids to logits, inside ``shard_map``."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.layers.attention import LayerContext
from engines.transformer.layers.block import layer
from engines.transformer.layers.embedding import embed, logits
from engines.transformer.layers.kv_cache import Cache, Caches
from engines.transformer.layers.norm import norm
from engines.transformer.layers.positions import Positions
from engines.transformer.layers.rope import rope_angles
from engines.transformer.params.tree import LayerParameters, Parameters, layer_parameters, only_layer, scan_inputs
from engines.transformer.partition.constraint import constrain, residual
from engines.transformer.partition.plan import Plan


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
    return logits(plan, parameters, norm(plan, parameters.final_norm, constrain(plan, x, residual)))


def hidden_states(
    plan: Plan, parameters: Parameters, cache: Caches, tokens: Array, positions: Positions, *, limit: int
) -> tuple[Array, Caches]:
    """The last layer's output, [batch.batch, time, E.residual], and the cache, as :func:`forward`.

    ``tokens`` may also be rows of packed sequences; ``positions`` then say where each sequence begins.
    """
    time = tokens.shape[1]
    here = positions.shard(plan, plan.axes.sequence).ids(time)
    x = embed(plan, parameters, tokens, positions)
    angles = rope_angles(plan.model, here)

    context = LayerContext(0, positions, limit, time, angles)
    if isinstance(parameters.layers, tuple):
        assert isinstance(cache, tuple)
        x, cache = _one_by_one(plan, parameters.layers, cache, x, context)
    else:
        assert isinstance(cache, dict)
        x, cache = _in_a_loop(plan, parameters.layers, cache, x, context)
    return x.reshape(-1, time, x.shape[-1]), cache


def _in_a_loop(
    plan: Plan, layers: LayerParameters, cache: Cache, x: Array, context: LayerContext
) -> tuple[Array, Cache]:
    """x through all layers of one stack: a program of one layer, whatever their number."""

    def step(carry: tuple[Array, Cache], turn: tuple[Any, LayerParameters]) -> tuple[tuple[Array, Cache], None]:
        number, vectors = turn
        one = layer_parameters(vectors, layers, number)
        return layer(plan, one, *carry, context._replace(layer=number)), None

    turns = (jnp.arange(plan.model.num_layers), scan_inputs(layers))
    (x, cache), _ = lax.scan(step, (x, cache), turns)
    return x, cache


def _one_by_one(
    plan: Plan, layers: tuple[LayerParameters, ...], caches: tuple[Cache, ...], x: Array, context: LayerContext
) -> tuple[Array, tuple[Cache, ...]]:
    """x through layers that have arrays of their own: a TPU fetches the next ones while a layer waits or computes."""
    written = []
    for one, mine in zip(layers, caches, strict=True):
        x, kept = layer(plan, only_layer(one), x, mine, context)
        written.append(kept)
    return x, tuple(written)
