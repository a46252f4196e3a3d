"""What queries see of sequences that have come to different lengths."""

from dataclasses import dataclass
from typing import Any, Self

from jax import Array

from engines.transformer.layers.mask import Behind, Positions, QueryBlock


class OfRows:
    """A mask with a row for each sequence, since they have come to different lengths: all scores are made at once."""

    __slots__ = ()

    is_whole_prompt = False
    sees_some = True

    def last(self, keys: Positions) -> Array:
        """See :class:`Mask`."""
        raise NotImplementedError("new tokens are written before they are read")

    def first_seen(self, query: int) -> int:
        """See :class:`Mask`."""
        raise NotImplementedError("sequences that start apart are no whole prompt")

    def for_kernel(self, time: int) -> Any:
        """See :class:`Mask`."""
        raise NotImplementedError("the kernel takes whole prompts")

    def of_prefix(self, time: int, length: int, held: int) -> Behind:
        """See :class:`Mask`."""
        raise NotImplementedError("sequences that start apart share no prefix")

    def padded(self, _time: int) -> Self:
        """See :class:`Mask`."""
        return self

    def key_blocks(self, queries: int, time: int, keys: int, limit: int) -> tuple[Any, Any]:
        """See :class:`Mask`."""
        raise NotImplementedError("all scores are made at once")


@dataclass(frozen=True, slots=True)
class OwnCausal(OfRows):
    """Query t of each sequence sees keys up to a ``start`` [rows] of its own + t: masks have a row for each sequence.

    The scores of all keys are made at once: such queries are few.
    """

    start: Array

    def seen(self, keys: Positions, queries: QueryBlock) -> Array:
        """[rows, 1, 1, count, keys], against scores [rows, slots, group, count, keys]."""
        seen: Array = self.distance(keys, queries) <= 0
        return seen

    def distance(self, keys: Positions, queries: QueryBlock) -> Array:
        """[rows, 1, 1, count, keys]: how many positions each key is before the query, ≤ 0 where it is seen."""
        apart: Any = keys - (self.start[:, None, None] + queries.ids)
        by_head: Array = apart[:, None, None]
        return by_head
