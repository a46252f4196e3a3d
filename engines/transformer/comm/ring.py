"""Collectives as loops of permutes around a ring of chips, so that a matmul can use each shard as soon as it arrives.

There are three rings, by the variants of :mod:`engines.core.layout`. Each sends n − 1 shards a chip, as the plain
collective does (Wang et al. 2023, "Overlap communication with dependent computation via decomposition"; Pope et al.
2022, section 3.5). Blocks are counted from the chip's own, 0: block r is that of the chip r positions ahead in the
ring.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.core.errors import InvalidRequest
from engines.transformer.comm.collectives import as_bytes
from engines.transformer.params.grouped import Weights, along, group_size_of
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan


class Part(NamedTuple):
    """A received part: rows [offset, offset + size) of block ``block`` of the ring."""

    block: int
    offset: int
    values: Any


class Block(NamedTuple):
    """Computes a block of a matmul's columns, in float32, when it is needed."""

    partial: Callable[[slice], Array]
    size: int
    shard: int

    def __call__(self, number: int, start: int = 0, stop: int | None = None) -> Array:
        """Block ``number``, counted around the ring, or a part of its columns."""
        first = number % self.size * self.shard
        return self.partial(slice(first + start, first + (self.shard if stop is None else stop)))


class Ring(ABC):
    """A ring all-gather and a ring reduce-scatter."""

    def all_gather(self, plan: Plan, x: Weights, axes: Axes, dim: int) -> Iterator[Part]:
        """All shards of x along a ring, the chip's own first, each as soon as it arrives."""
        yield Part(0, 0, x)
        if plan.axes.size(axes) > 1:
            yield from self._gather(plan, x, axes, dim)

    def reduce_scatter(
        self, plan: Plan, partial: Callable[[slice], Array], axes: Axes, length: int, dtype: Any
    ) -> Array:
        """Reduce-scatter of a matmul of ``length`` columns; ``partial`` computes a slice of them in float32.

        Partial sums are sent in ``dtype``; returns this chip's block, block 0, in ``dtype``.
        """
        size = plan.axes.size(axes)
        if size == 1:
            return partial(slice(0, length)).astype(dtype)

        def send(x: Array, by: int) -> Array:
            sent: Array = permute(plan, x.astype(dtype), axes, by).astype(jnp.float32)
            return sent

        return self._reduce(Block(partial, size, length // size), send).astype(dtype)

    @abstractmethod
    def _gather(self, plan: Plan, x: Weights, axes: Axes, dim: int) -> Iterator[Part]:
        """The shards of the other chips."""

    @abstractmethod
    def _reduce(self, block: Block, send: Callable[[Array, int], Array]) -> Array:
        """The sum of block 0 over all chips, in float32; ``send(x, by)`` permutes a partial sum along the ring."""


class OneWay(Ring):
    """Whole shards in one direction, n − 1 steps."""

    def _gather(self, plan: Plan, x: Weights, axes: Axes, dim: int) -> Iterator[Part]:
        for step in range(1, plan.axes.size(axes)):
            x = permute(plan, x, axes, -1)
            yield Part(step, 0, x)

    def _reduce(self, block: Block, send: Callable[[Array, int], Array]) -> Array:
        moving = block(1)
        for step in range(2, block.size + 1):
            moving = send(moving, -1) + block(step)
        return moving


class Throughput(Ring):
    """Half shards in both directions at once, n − 1 steps of half the transfer time; shards of one row go one way."""

    def _gather(self, plan: Plan, x: Weights, axes: Axes, dim: int) -> Iterator[Part]:
        size, shard = plan.axes.size(axes), x.shape[dim]
        # Groups of rows stay whole, so that each half has the scales of its own.
        whole = group_size_of(x) if dim == 0 else 1
        if shard == whole:
            yield from OneWay()._gather(plan, x, axes, dim)
            return
        half = shard // whole // 2 * whole

        def part(start: int, stop: int) -> Any:
            return along(
                x, dim, lambda each, axis, unit: lax.slice_in_dim(each, start // unit, stop // unit, axis=axis)
            )

        near, far = part(0, half), part(half, shard)
        for step in range(1, size):
            near, far = permute(plan, near, axes, -1), permute(plan, far, axes, 1)
            yield Part(step, 0, near)
            yield Part(size - step, half, far)

    def _reduce(self, block: Block, send: Callable[[Array, int], Array]) -> Array:
        if block.shard == 1:
            return OneWay()._reduce(block, send)
        half, shard = block.shard // 2, block.shard
        down, up = block(1, 0, half), block(-1, half, shard)
        for step in range(2, block.size + 1):
            down = send(down, -1) + block(step, 0, half)
            up = send(up, 1) + block(-step, half, shard)
        return jnp.concatenate([down, up], axis=1)


class Latency(Ring):
    """Whole shards in both directions at once, n/2 steps, twice the buffer."""

    def _gather(self, plan: Plan, x: Weights, axes: Axes, dim: int) -> Iterator[Part]:
        size, after, before = plan.axes.size(axes), x, x
        for step in range(1, size // 2 + 1):
            after = permute(plan, after, axes, -1)
            yield Part(step, 0, after)
            if step != size - step:
                before = permute(plan, before, axes, 1)
                yield Part(size - step, 0, before)

    def _reduce(self, block: Block, send: Callable[[Array, int], Array]) -> Array:
        after, before = block.size // 2, (block.size - 1) // 2
        total = None
        for by, hops in ((-1, after), (1, before)):
            moving = None
            for hop in range(hops, 0, -1):
                own = block(by * hop)
                moving = send(own if moving is None else moving + own, by)
            if moving is not None:
                total = moving if total is None else total + moving
        own = block(0)
        return own if total is None else own + total


RINGS: Final[dict[str, Ring]] = {"oneway": OneWay(), "throughput": Throughput(), "latency": Latency()}
"""Variant of collectives → its ring."""


def ring_of(plan: Plan) -> Ring:
    """The ring of the plan's collectives.

    Raises:
        InvalidRequest: the variant has none.
    """
    if plan.collectives not in RINGS:
        raise InvalidRequest("collectives", plan.collectives, "has no ring", f"use one of {', '.join(RINGS)}")
    return RINGS[plan.collectives]


def ring_axes(axes: Axes) -> Axes:
    """The axes of a ring of activations: one axis, or none where a collective spans several.

    Along one axis every send goes to a neighbor. A ring through several axes would use the links of one axis at a time,
    where the compiler's collective uses those of all, and its many small blocks would utilize the MXU poorly.
    """
    return axes if len(axes) == 1 else ()


def concatenated(parts: list[tuple[int, Array]]) -> Array:
    """Parts (start, values), concatenated along dimension 1 in the order of their start."""
    ordered = [values for _, values in sorted(parts, key=lambda part: part[0])]
    return jnp.concatenate(ordered, axis=1) if len(ordered) > 1 else ordered[0]


def permute(plan: Plan, x: Any, axes: Axes, by: int) -> Any:
    """Send every chip's x to the chip ``by`` positions ahead along the ring of ``axes``, slowest first.

    x is an array, or a matrix in groups.
    """
    return pass_on(plan, x, axes, range(plan.axes.size(axes)), by)


def pass_on(plan: Plan, x: Any, axes: Axes, ring: Sequence[int], by: int = 1) -> Any:
    """Send every array of x to the chip ``by`` places ahead in ``ring``, chips of ``axes`` counted slowest first."""
    # ppermute numbers chips in the mesh's order of axes, whatever the order in which the axes are named.
    named = tuple(sorted(axes))
    sizes = [plan.axes.size((axis,)) for axis in axes]
    numbers = []
    for place in itertools.product(*map(range, sizes)):
        at = dict(zip(axes, place, strict=True))
        number = 0
        for axis in named:
            number = number * plan.axes.size((axis,)) + at[axis]
        numbers.append(number)
    walked = [numbers[each] for each in ring]
    sends = [(chip, walked[(position + by) % len(walked)]) for position, chip in enumerate(walked)]
    return jax.tree.map(lambda part: as_bytes(part, lambda sent: lax.ppermute(sent, named, sends)), x)
