"""What attention has of each query head besides queries: ALiBi's slopes and attention sinks."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engines.core.alibi import slopes
from engines.transformer.comm.collectives import axis_index
from engines.transformer.layers.mask import BlockMask, Positions, QueryBlock
from engines.transformer.partition.kv_heads import query_heads
from engines.transformer.partition.padding import real_heads
from engines.transformer.partition.plan import Plan


class PerHead(NamedTuple):
    """Of a chip's query heads [rows, slots, group, 1, 1], in base 2 as scores are; None where the model has none.

    ``slopes``: what a score loses for every position that the key is before the query. ``sinks``: a score that takes
    weight and gives no value. There are as many rows as queries have, or one for all.
    """

    slopes: Array | None = None
    sinks: Array | None = None

    def rows(self, start: Array, count: int) -> "PerHead":
        """Those of some rows of the queries."""

        def cut(each: Array | None) -> Array | None:
            if each is None or each.shape[0] == 1:
                return each
            some: Array = lax.dynamic_slice_in_dim(each, start, count)
            return some

        return PerHead(*map(cut, self))

    def bias(self, mask: BlockMask, keys: Positions, queries: QueryBlock) -> Array | None:
        """What is added to scores [rows, slots, group, count, keys]."""
        return None if self.slopes is None else self.slopes * mask.distance(keys, queries)


NONE = PerHead()


def per_head(plan: Plan, sinks: Array | None, batch: int, slots: int, kv_heads: int) -> PerHead:
    """Those of the heads that this chip attends with, for queries [batch · slots, …, kv_heads, group, …].

    ``sinks`` are those of all padded heads, in base 2. ``slots`` is more than 1 where slots are folded into the batch.
    """
    alibi = plan.model.position == "alibi"
    if sinks is None and not alibi:
        return NONE
    mine = jnp.asarray(query_heads(plan))[axis_index(plan.axes.head)]

    def arranged(of_all: Array) -> Array:
        own = of_all[mine]
        if slots == 1:
            return own.reshape(1, kv_heads, -1, 1, 1)
        return jnp.tile(own.reshape(slots, 1, -1, 1, 1), (batch, 1, 1, 1, 1))

    every = np.asarray(slopes(plan.model.num_heads), np.float32) * np.float32(math.log2(math.e))
    return PerHead(
        arranged(jnp.asarray(every[real_heads(plan.padded)])) if alibi else None,
        None if sinks is None else arranged(sinks),
    )
