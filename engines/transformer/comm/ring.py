"""Collectives as loops of sends around a ring of chips, so that each shard meets a matmul as soon as it arrives.

Three ways around, by the variants of :mod:`engines.core.layout`, each of which moves n − 1 shards a chip, as the plain
collective does (Wang et al. 2023, "Overlap communication with dependent computation via decomposition"; Pope et al.
2022, section 3.5). Blocks are numbered from the chip's own: block r is that of the chip r places on.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from engines.core.errors import InvalidRequest
from engines.transformer.comm.collectives import as_bytes
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan


class Part(NamedTuple):
    """What arrived: rows [offset, offset + size) of block ``block`` of the ring."""

    block: int
    offset: int
    values: Array


class Block(NamedTuple):
    """Makes a block of a product's columns, in float32, when it is needed."""

    partial: Callable[[slice], Array]
    size: int
    shard: int

    def __call__(self, number: int, start: int = 0, stop: int | None = None) -> Array:
        """Block ``number``, counted around the ring, or a part of its columns."""
        first = number % self.size * self.shard
        return self.partial(slice(first + start, first + (self.shard if stop is None else stop)))


class Ring(ABC):
    """One way around."""

    def arrivals(self, plan: Plan, x: Array, axes: Axes, dim: int) -> Iterator[Part]:
        """All shards of x along a ring, the chip's own first, each as soon as it is there."""
        yield Part(0, 0, x)
        if plan.axes.size(axes) > 1:
            yield from self._arriving(plan, x, axes, dim)

    def sums(self, plan: Plan, partial: Callable[[slice], Array], axes: Axes, length: int, dtype: Any) -> Array:
        """Reduce-scatter of a product of ``length`` columns whose columns ``partial`` computes, in float32, as needed.

        Sums travel in ``dtype``; the result is this chip's block, block 0.
        """
        size = plan.axes.size(axes)
        if size == 1:
            return partial(slice(0, length)).astype(dtype)

        def onward(x: Array, by: int) -> Array:
            return permute(plan, x.astype(dtype), axes, by).astype(jnp.float32)

        return self._summed(Block(partial, size, length // size), onward).astype(dtype)

    @abstractmethod
    def _arriving(self, plan: Plan, x: Array, axes: Axes, dim: int) -> Iterator[Part]:
        """The shards of the other chips."""

    @abstractmethod
    def _summed(self, block: Block, onward: Callable[[Array, int], Array]) -> Array:
        """The sum of block 0 over all chips, in float32; ``onward`` sends a partial sum along the ring."""


class OneWay(Ring):
    """Whole shards in one direction, n − 1 steps."""

    def _arriving(self, plan: Plan, x: Array, axes: Axes, dim: int) -> Iterator[Part]:
        for step in range(1, plan.axes.size(axes)):
            x = permute(plan, x, axes, -1)
            yield Part(step, 0, x)

    def _summed(self, block: Block, onward: Callable[[Array, int], Array]) -> Array:
        moving = block(1)
        for step in range(2, block.size + 1):
            moving = onward(moving, -1) + block(step)
        return moving


class Throughput(Ring):
    """Half shards in both directions at once, n − 1 steps of half the time on the links; shards of one go one way."""

    def _arriving(self, plan: Plan, x: Array, axes: Axes, dim: int) -> Iterator[Part]:
        size, shard = plan.axes.size(axes), x.shape[dim]
        if shard == 1:
            yield from OneWay()._arriving(plan, x, axes, dim)
            return
        half = shard // 2
        near, far = lax.slice_in_dim(x, 0, half, axis=dim), lax.slice_in_dim(x, half, shard, axis=dim)
        for step in range(1, size):
            near, far = permute(plan, near, axes, -1), permute(plan, far, axes, 1)
            yield Part(step, 0, near)
            yield Part(size - step, half, far)

    def _summed(self, block: Block, onward: Callable[[Array, int], Array]) -> Array:
        if block.shard == 1:
            return OneWay()._summed(block, onward)
        half, shard = block.shard // 2, block.shard
        down, up = block(1, 0, half), block(-1, half, shard)
        for step in range(2, block.size + 1):
            down = onward(down, -1) + block(step, 0, half)
            up = onward(up, 1) + block(-step, half, shard)
        return jnp.concatenate([down, up], axis=1)


class Latency(Ring):
    """Whole shards in both directions, n/2 steps, twice the buffer."""

    def _arriving(self, plan: Plan, x: Array, axes: Axes, dim: int) -> Iterator[Part]:
        size, after, before = plan.axes.size(axes), x, x
        for step in range(1, size // 2 + 1):
            after = permute(plan, after, axes, -1)
            yield Part(step, 0, after)
            if step != size - step:
                before = permute(plan, before, axes, 1)
                yield Part(size - step, 0, before)

    def _summed(self, block: Block, onward: Callable[[Array, int], Array]) -> Array:
        after, before = block.size // 2, (block.size - 1) // 2
        total = None
        for by, hops in ((-1, after), (1, before)):
            moving = None
            for hop in range(hops, 0, -1):
                own = block(by * hop)
                moving = onward(own if moving is None else moving + own, by)
            if moving is not None:
                total = moving if total is None else total + moving
        own = block(0)
        return own if total is None else own + total


RINGS: Final[dict[str, Ring]] = {"oneway": OneWay(), "throughput": Throughput(), "latency": Latency()}
"""Variant of collectives → its way around."""


def ring_of(plan: Plan) -> Ring:
    """The ring of the plan's collectives.

    Raises:
        InvalidRequest: the variant has none.
    """
    if plan.collectives not in RINGS:
        raise InvalidRequest("collectives", plan.collectives, "has no ring", f"use one of {', '.join(RINGS)}")
    return RINGS[plan.collectives]


def ring_axes(axes: Axes) -> Axes:
    """The axes around which activations go in a loop: one axis, or none where a collective spans several.

    Along one axis every send is to a neighbour. A ring through several would use one axis's links at a time, where the
    compiler's own collective drives those of all, and its many small blocks would fill the matrix unit badly.
    """
    return axes if len(axes) == 1 else ()


def joined(parts: list[tuple[int, Array]]) -> Array:
    """Parts by where they start, side by side along dimension 1."""
    ordered = [values for _, values in sorted(parts, key=lambda part: part[0])]
    return jnp.concatenate(ordered, axis=1) if len(ordered) > 1 else ordered[0]


def permute(plan: Plan, x: Array, axes: Axes, by: int) -> Array:
    """Every chip's x to the chip ``by`` places on along the ring of ``axes``, slowest first."""
    # ppermute counts chips in the mesh's order of axes, whatever the order in which they are named.
    named = tuple(sorted(axes))
    sizes = [plan.axes.size((axis,)) for axis in axes]
    ring = []
    for place in itertools.product(*map(range, sizes)):
        at = dict(zip(axes, place, strict=True))
        number = 0
        for axis in named:
            number = number * plan.axes.size((axis,)) + at[axis]
        ring.append(number)
    sends = [(chip, ring[(position + by) % len(ring)]) for position, chip in enumerate(ring)]
    return as_bytes(x, lambda sent: lax.ppermute(sent, named, sends))
