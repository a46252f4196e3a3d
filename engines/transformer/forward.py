"""Token ids to logits, inside ``shard_map``."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.layers.attention import Where
from engines.transformer.layers.block import layer
from engines.transformer.layers.embedding import embed, logits
from engines.transformer.layers.kv_cache import Cache
from engines.transformer.layers.norm import norm
from engines.transformer.layers.positions import Positions
from engines.transformer.layers.rope import rope_angles
from engines.transformer.params.tree import LayerParameters, Parameters, of_layer, scanned
from engines.transformer.partition.constraint import constrain, residual
from engines.transformer.partition.plan import Plan


def forward(
    plan: Plan, parameters: Parameters, cache: Cache, tokens: Array, positions: Positions, *, limit: int
) -> tuple[Array, Cache]:
    """Logits [batch, vocab.all] (float32) of the last of ``tokens`` [batch, time], and the cache with all of them.

    Every chip gets all token ids. ``limit`` is the number of cached positions that can matter (static).
    """
    x, cache = states(plan, parameters, cache, tokens, positions, limit=limit)
    return output(plan, parameters, x[:, -1]), cache


def output(plan: Plan, parameters: Parameters, x: Array) -> Array:
    """What leaves the last layer, [batch.batch, E.residual] → logits [batch, vocab.all]."""
    return logits(plan, parameters, norm(plan, parameters.final_norm, constrain(plan, x, residual)))


def states(
    plan: Plan, parameters: Parameters, cache: Cache, tokens: Array, positions: Positions, *, limit: int
) -> tuple[Array, Cache]:
    """What leaves the last layer, [batch.batch, time, E.residual], and the cache, as :func:`forward`.

    ``tokens`` may also be rows of packed sequences, and ``positions`` then say where those lie.
    """
    time = tokens.shape[1]
    here = positions.shard(plan, plan.axes.sequence).ids(time)
    x = embed(plan, parameters, tokens, positions)
    angles = rope_angles(plan.model, here)

    def step(carry: tuple[Array, Cache], turn: tuple[Any, LayerParameters]) -> tuple[tuple[Array, Cache], None]:
        number, vectors = turn
        one = of_layer(vectors, parameters.layers, number)
        return layer(plan, one, *carry, Where(number, positions, limit, time, angles)), None

    turns = (jnp.arange(plan.model.num_layers), scanned(parameters.layers))
    (x, cache), _ = lax.scan(step, (x, cache), turns)
    return x.reshape(-1, time, x.shape[-1]), cache
