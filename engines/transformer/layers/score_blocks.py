"""How many scores of attention exist at once: all, a strip of queries, or a block."""

import math
from typing import Final

from engines.transformer.layers.mask import Mask
from engines.transformer.partition.plan import Plan

DIRECT_BLOCKS: Final = 2
"""Up to this many blocks of keys, all scores are computed at once."""
DIRECT_SCORES: Final = 16
"""Up to this many blocks of scores on a chip likewise: with more, a TPU's schedule is as short blockwise."""
BLOCK_SCORES: Final = 1 << 22
"""Largest number of scores in a block; sequences share a block within this limit."""
STRIP_SCORES: Final = 1 << 24
"""Largest number of scores of a strip: a block of queries with all the keys of a prompt."""


def uses_blocks(plan: Plan, queries: tuple[int, ...], limit: int) -> bool:
    """Whether queries [batch, time, heads, dim] attend to ``limit`` keys blockwise; a single query never does."""
    batch, time, heads, _ = queries
    requested = plan.prefill.attention
    if time == 1 or requested in ("direct", "blockwise"):
        return time > 1 and requested == "blockwise"
    block = plan.prefill.block
    return limit > DIRECT_BLOCKS * block and batch * heads * time * limit > DIRECT_SCORES * block**2 * _shards(plan)


def in_strips(plan: Plan, queries: tuple[int, ...], limit: int, mask: Mask) -> bool:
    """Whether a whole prompt's queries [batch, time, heads, dim] attend strip by strip, not block by block.

    Where the compiler need not loop: a strip's scores are few, and what all its queries see is known.
    """
    batch, time, heads, _ = queries
    few = batch * heads * min(time, plan.prefill.block) * limit <= STRIP_SCORES
    wanted = plan.prefill.attention == "auto" and uses_blocks(plan, queries, limit)
    return wanted and few and mask.is_whole_prompt and time == limit and plan.annotation is None


def block_shape(plan: Plan, batch: int, heads: int, time: int, limit: int) -> tuple[int, int, int]:
    """(sequences, queries, keys) of one block: queries in equal parts, sequences a divisor of the batch.

    Where the compiler partitions, all sequences share a block: the batch is already split over the chips.
    """
    most, keys_per_block = plan.prefill.block, min(plan.prefill.block, limit)
    queries = math.ceil(time / math.ceil(time / most))
    fitting = max(1, BLOCK_SCORES // (heads * queries * keys_per_block))
    cut = plan.annotation is None
    rows = next(each for each in range(min(fitting, batch), 0, -1) if batch % each == 0) if cut else batch
    return rows, queries, keys_per_block


def _shards(plan: Plan) -> int:
    """Chips over which the batch and heads of global arrays are split; 1 inside ``shard_map``."""
    if plan.annotation is None:
        return 1
    axes = plan.annotation.plan.axes
    return axes.size(axes.sequence) * axes.size(axes.head)
