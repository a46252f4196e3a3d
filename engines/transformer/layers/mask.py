"""Which keys each query sees: one object for every attention implementation, direct, blockwise or kernel."""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

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

    @property
    def ids(self) -> Array:
        """Numbers of the queries, [count, 1]."""
        ids: Array = jnp.arange(self.count)[:, None]
        return ids if self.start is None else self.start + ids


@dataclass(frozen=True, slots=True)
class Window:
    """The ``size`` keys at most that a query sees, itself included: the last, or those of its own block of so many.

    ``origin`` is the number of tokens of a sequence before position 0: a shared prefix.
    """

    size: int
    chunked: bool
    origin: int = 0

    def first(self, query: Any) -> Any:
        """Position of the first key that the query at a position sees; before the first key there is, it is below 0."""
        if self.chunked:
            return (query + self.origin) // self.size * self.size - self.origin
        return query - (self.size - 1)


class BlockMask(Protocol):
    """Which keys each query sees: what attention needs, at once and block by block.

    Keys are numbered as they lie in the array that is attended to.
    """

    def seen(self, keys: Positions, queries: QueryBlock) -> Array:
        """keys: [1, keys], their numbers → [count, keys], or [1, keys] where all queries see the same."""
        ...

    def distance(self, keys: Positions, queries: QueryBlock) -> Array:
        """keys: [1, keys], their numbers → [count, keys]: how many positions each is before the query, ≤ 0."""
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
    def sees_some(self) -> bool:
        """Whether every query surely sees a key."""
        ...

    @property
    def is_whole_prompt(self) -> bool:
        """Whether query t is at position t and key t as well, as known at compile time."""
        ...

    def last(self, keys: Positions) -> Array:
        """keys: [1, keys], their numbers → whether each is that of the one query, the last that it sees."""
        ...

    def first_seen(self, query: int) -> int:
        """The first key that a query of a whole prompt sees."""
        ...

    def for_kernel(self, time: int) -> Any:
        """The splash kernel's own mask for a whole prompt of ``time`` tokens."""
        ...

    def of_prefix(self, time: int, length: int, held: int) -> "Mask":
        """What the same ``time`` queries see of a shared prefix of ``length``, which stands before all their own keys.

        Of the prefix the last ``held`` tokens are there, in a rolling cache. The queries of all sequences are numbered
        one after another.
        """
        ...


@runtime_checkable
class AttendsItself(Protocol):
    """A mask of keys that lie in another way than by sequences, and how queries attend to them."""

    def attend(self, plan: Any, scaled: Array, keys: Any, vals: Any, heads: Any) -> Any:
        """Attention as a :class:`engines.transformer.layers.online_softmax.Partial` of the queries ``scaled``."""
        ...


@dataclass(frozen=True, slots=True)
class Causal:
    """Query t sees keys up to ``position`` + t, those of its ``window`` where there is one.

    Where sequences are packed it sees keys from ``first`` [time] (ascending) on, where its own sequence begins; on no
    chip is that before ``least`` [time], which the compiler knows.
    """

    position: Any
    first: Array | None = None
    window: Window | None = None
    least: NDArray[np.int32] | None = None

    sees_some = True

    @property
    def is_whole_prompt(self) -> bool:
        """See :class:`Mask`."""
        return isinstance(self.position, int) and self.position == 0 and self.first is None

    def seen(self, keys: Positions, queries: QueryBlock) -> Array:
        """See :class:`Mask`."""
        position = self.position if queries.start is None else self.position + queries.start
        at = position + jnp.arange(queries.count)[:, None]
        seen: Any = keys <= at
        first = self.first
        if first is not None:
            if queries.start is not None:
                first = lax.dynamic_slice_in_dim(first, queries.start, queries.count)
            first = first[:, None]
            seen = seen & (keys >= first)
        if self.window is not None:
            seen = seen & (keys >= _first(self.window, at, first))
        whole: Array = seen
        return whole

    def distance(self, keys: Positions, queries: QueryBlock) -> Array:
        """See :class:`Mask`."""
        apart: Array = keys - (self.position + queries.ids)
        return apart

    def first_seen(self, query: int) -> int:
        """See :class:`Mask`."""
        return 0 if self.window is None else max(0, int(self.window.first(query)))

    def for_kernel(self, time: int) -> Any:
        """See :class:`Mask`."""
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

        if self.window is None:
            return masks.CausalMask((time, time))
        if self.window.chunked:
            return masks.ChunkedCausalMask((time, time), self.window.size)
        return masks.LocalMask((time, time), (self.window.size - 1, 0), 0)

    def last(self, keys: Positions) -> Array:
        """See :class:`Mask`."""
        return jnp.asarray(keys == self.position)

    def of_prefix(self, time: int, length: int, held: int) -> "Behind":
        """See :class:`Mask`."""
        return Behind(self.position, time, length, held, self.window)

    def padded(self, time: int) -> "Causal":
        """See :class:`Mask`."""
        if self.first is None:
            return self
        more = (0, time - self.first.shape[0])
        least = None if self.least is None else np.pad(self.least, more, mode="edge")
        return replace(self, first=jnp.pad(self.first, more, mode="edge"), least=least)

    def key_blocks(self, queries: int, time: int, keys: int, limit: int) -> tuple[Any, Any]:
        """See :class:`Mask`."""
        parts = math.ceil(time / queries)
        last = self.position + np.minimum(np.arange(1, parts + 1) * queries, time) - 1
        ends: Any = (last // keys + 1).clip(max=math.ceil(limit / keys))
        known = self.first if self.least is None else self.least
        firsts: Any = None if known is None else known[::queries]
        if self.window is not None:
            firsts = _first(self.window, self.position + np.arange(parts) * queries, firsts).clip(min=0)
        begins: Any = np.zeros(parts, np.int32) if firsts is None else firsts // keys
        return begins, ends


@dataclass(frozen=True, slots=True)
class Behind:
    """Queries behind a prefix of ``length`` tokens: every one sees all of it, or those of its ``window``.

    The last ``held`` tokens lie in a rolling cache, position p in slot p mod ``held``. ``time`` queries of a sequence
    stand from ``position`` on, counted from the end of the prefix; then come those of the next sequence, at the same
    positions.
    """

    position: Any = 0
    time: int = 1
    length: int = 0
    held: int = 1
    window: Window | None = None

    is_whole_prompt = False

    @property
    def sees_some(self) -> bool:
        """See :class:`Mask`: not where all of the prefix is before its window."""
        return self.window is None

    def seen(self, keys: Positions, queries: QueryBlock) -> Array:
        """See :class:`Mask`."""
        if self.window is None:
            return jnp.ones(keys.shape, bool)
        seen: Array = self._key(keys) >= self.window.first(self._at(queries))
        return seen

    def distance(self, keys: Positions, queries: QueryBlock) -> Array:
        """See :class:`Mask`."""
        apart: Array = self._key(keys) - self._at(queries)
        return apart

    def last(self, keys: Positions) -> Array:
        """See :class:`Mask`: none, as the query stands behind all of them."""
        return jnp.zeros(keys.shape, bool)

    def first_seen(self, query: int) -> int:
        """See :class:`Mask`."""
        raise NotImplementedError("queries behind a prefix are no whole prompt")

    def for_kernel(self, time: int) -> Any:
        """See :class:`Mask`."""
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

        return masks.FullMask((time, time))

    def of_prefix(self, _time: int, _length: int, _held: int) -> "Behind":
        """See :class:`Mask`."""
        return self

    def padded(self, _time: int) -> "Behind":
        """See :class:`Mask`."""
        return self

    def key_blocks(self, queries: int, time: int, keys: int, limit: int) -> tuple[Any, Any]:
        """See :class:`Mask`."""
        parts = math.ceil(time / queries)
        return np.zeros(parts, np.int32), np.full(parts, math.ceil(limit / keys))

    def _key(self, keys: Positions) -> Any:
        """Positions of keys, counted from the end of the prefix."""
        return in_slot(keys, self.length - 1, self.held) - self.length

    def _at(self, queries: QueryBlock) -> Array:
        at: Array = self.position + queries.ids % self.time
        return at


def in_slot(slot: Any, newest: Any, length: int) -> Any:
    """The position in a slot of a rolling cache of ``length``, of which the ``newest`` position was written last."""
    return newest - (newest - slot) % length


def _first(window: Window, query: Any, begin: Any) -> Any:
    """:meth:`Window.first` of queries whose sequences ``begin`` at some keys; None is 0."""
    if begin is None:
        return window.first(query)
    bounded: Any = (begin + window.first(query - begin)).clip(min=begin)
    return bounded
