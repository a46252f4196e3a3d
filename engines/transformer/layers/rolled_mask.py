"""What queries see of a rolling cache."""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from engines.transformer.layers.mask import Causal, Mask, Positions, QueryBlock, in_slot


@dataclass(frozen=True, slots=True)
class Rolled:
    """Queries of ``mask``, whose keys lie in a rolling cache: position p in slot p mod ``length``.

    The first ``held`` keys are slots, which hold the positions up to ``mask.position`` + ``written`` − 1; the keys
    behind them are those of the queries, in order.
    """

    mask: Causal
    length: int
    held: int
    written: int

    is_whole_prompt = False
    sees_some = True

    def seen(self, keys: Positions, queries: QueryBlock) -> Array:
        """See :class:`Mask`."""
        at = self._at(keys)
        seen: Array = self.mask.seen(at, queries) & (at >= 0)
        return seen

    def distance(self, keys: Positions, queries: QueryBlock) -> Array:
        """See :class:`Mask`."""
        return self.mask.distance(self._at(keys), queries)

    def last(self, keys: Positions) -> Array:
        """See :class:`Mask`."""
        return self.mask.last(self._at(keys))

    def first_seen(self, query: int) -> int:
        """See :class:`Mask`."""
        raise NotImplementedError("a rolling cache holds no whole prompt")

    def for_kernel(self, time: int) -> Any:
        """See :class:`Mask`."""
        raise NotImplementedError("the kernel takes whole prompts")

    def of_prefix(self, time: int, length: int, held: int) -> Mask:
        """See :class:`Mask`."""
        return self.mask.of_prefix(time, length, held)

    def padded(self, _time: int) -> "Rolled":
        """See :class:`Mask`."""
        return self

    def key_blocks(self, queries: int, time: int, keys: int, limit: int) -> tuple[Any, Any]:
        """See :class:`Mask`."""
        parts = math.ceil(time / queries)
        return np.zeros(parts, np.int32), np.full(parts, math.ceil(limit / keys))

    def _at(self, keys: Positions) -> Array:
        """The position of each key; below 0 of a slot that nothing was written to."""
        start = self.mask.position
        slot = in_slot(keys, start + self.written - 1, self.length)
        at: Array = jnp.where(keys < self.held, slot, start + keys - self.held)
        return at
