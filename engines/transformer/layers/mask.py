"""Which keys each query sees: one object for every attention implementation, direct, blockwise or kernel."""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

Positions = Array | NDArray[np.int64]
"""Of keys: numpy where the program is to compute nothing for a mask that does not depend on them."""


@dataclass(frozen=True, slots=True)
class QueryBlock:
    """Queries [start, start + count) of a prompt; ``start`` None is 0 without an addition in the program."""

    count: int
    start: Any = None


class BlockMask(Protocol):
    """Which keys each query sees: what attention needs, at once and block by block."""

    def seen(self, keys: Positions, queries: QueryBlock) -> Array:
        """keys: [1, keys] as positions → [count, keys], or [1, keys] where all queries see the same."""
        ...

    def padded(self, time: int) -> "BlockMask":
        """The mask for ``time`` queries; the additional ones repeat the last query."""
        ...

    def key_blocks(self, queries: int, time: int, keys: int, limit: int) -> tuple[Any, Any]:
        """(first, end) of the blocks of ``keys`` (of ``limit``) to visit for each block of ``queries`` (of ``time``).

        Blocks outside have no key that a query of the block sees. numpy arrays where they are known at compile time.
        """
        ...


class Mask(BlockMask, Protocol):
    """A mask of all keys that a chip's queries see."""

    @property
    def is_whole_prompt(self) -> bool:
        """Whether query t sees exactly the keys 0 … t, as known at compile time."""
        ...

    def last(self, keys: Positions) -> Array:
        """keys: [1, keys] as positions → whether each is that of the one query, the last that it sees."""
        ...

    def for_kernel(self, time: int) -> Any:
        """The splash kernel's own mask for a whole prompt of ``time`` tokens."""
        ...

    def of_prefix(self) -> "Mask":
        """What the same queries see of a shared prefix, which stands before all their own keys."""
        ...


@dataclass(frozen=True, slots=True)
class Causal:
    """Query t sees keys up to ``position`` + t; where sequences are packed, from ``first`` [time] (ascending) on."""

    position: Any
    first: Array | None = None

    @property
    def is_whole_prompt(self) -> bool:
        """See :class:`Mask`."""
        return isinstance(self.position, int) and self.position == 0 and self.first is None

    def seen(self, keys: Positions, queries: QueryBlock) -> Array:
        """See :class:`Mask`."""
        position = self.position if queries.start is None else self.position + queries.start
        seen: Array = keys <= position + jnp.arange(queries.count)[:, None]
        if self.first is None:
            return seen
        first = self.first
        if queries.start is not None:
            first = lax.dynamic_slice_in_dim(first, queries.start, queries.count)
        both: Array = seen & (keys >= first[:, None])
        return both

    def for_kernel(self, time: int) -> Any:
        """See :class:`Mask`."""
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

        return masks.CausalMask((time, time))

    def last(self, keys: Positions) -> Array:
        """See :class:`Mask`."""
        return jnp.asarray(keys == self.position)

    def of_prefix(self) -> "Everything":
        """See :class:`Mask`."""
        return Everything()

    def padded(self, time: int) -> "Causal":
        """See :class:`Mask`."""
        if self.first is None:
            return self
        return replace(self, first=jnp.pad(self.first, (0, time - self.first.shape[0]), mode="edge"))

    def key_blocks(self, queries: int, time: int, keys: int, limit: int) -> tuple[Any, Any]:
        """See :class:`Mask`."""
        parts = math.ceil(time / queries)
        last = self.position + np.minimum(np.arange(1, parts + 1) * queries, time) - 1
        ends: Any = (last // keys + 1).clip(max=math.ceil(limit / keys))
        begins: Any = np.zeros(parts, np.int32) if self.first is None else self.first[::queries] // keys
        return begins, ends


@dataclass(frozen=True, slots=True)
class Everything:
    """Every query sees every key."""

    is_whole_prompt = False

    def seen(self, keys: Positions, _queries: QueryBlock) -> Array:
        """See :class:`Mask`."""
        return jnp.ones(keys.shape, bool)

    def last(self, keys: Positions) -> Array:
        """See :class:`Mask`: none, as the query stands behind all of them."""
        return jnp.zeros(keys.shape, bool)

    def for_kernel(self, time: int) -> Any:
        """See :class:`Mask`."""
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

        return masks.FullMask((time, time))

    def of_prefix(self) -> "Everything":
        """See :class:`Mask`."""
        return self

    def padded(self, _time: int) -> "Everything":
        """See :class:`Mask`."""
        return self

    def key_blocks(self, queries: int, time: int, keys: int, limit: int) -> tuple[Any, Any]:
        """See :class:`Mask`."""
        parts = math.ceil(time / queries)
        return np.zeros(parts, np.int32), np.full(parts, math.ceil(limit / keys))
