"""Looped collective einsums: a collective beside a matmul becomes permutes between partial matmuls.

Wire and matrix unit then work at once, whatever the compiler's schedule for collectives (Wang et al. 2023, "Overlap
communication with dependent computation via decomposition"; Pope et al. 2022, section 3.5). Three ways around the ring:

- ``oneway``: whole shards, one direction, n − 1 steps;
- ``throughput``: half shards in both directions at once, n − 1 steps of half the time on the wire;
- ``latency``: whole shards in both directions, n/2 steps, twice the buffer.

Each moves n − 1 shards a chip, as the plain collective does. Blocks are numbered from the chip's own: block r of a ring
is that of the chip r places on. Weights that stay are rolled once at load (:func:`rolled`) so that every block is a
static slice of them. Weights that are gathered circulate instead, and activations are sliced; those of a feed-forward
that are gathered along its columns do so in :mod:`engines.transformer.layers.mlp`. A collective of activations over
several axes is left to the compiler (:func:`ring_axes`). A fused block of stationary weights that decodes does not
loop in the variant ``latency``: :mod:`engines.transformer.layers.overlapped_block` has it.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh

from engines.transformer.comm.collectives import (
    all_gather,
    as_bytes,
    axis_index,
    dequantize,
    product,
    quantize_tokens,
    reduce_scatter,
)
from engines.transformer.params.parameters import parameter_specs
from engines.transformer.partition.plan import Axes, Plan

Weights = dict[str, Array]
MATMUL: Final = "tr,rc->tc"


class Matmul(NamedTuple):
    """Which axes one projection x: [tokens, rows] · w: [rows, columns] meets.

    ``gathered`` splits the rows of x before, ``scattered`` the columns of the result after. ``contracted`` and
    ``produced`` are the axes over which w itself is to be gathered, along rows and along columns.
    """

    gathered: Axes
    scattered: Axes
    contracted: Axes
    produced: Axes


class Stored(NamedTuple):
    """Layer ``layer`` of stacked matrices [layers, rows, columns], not read until :meth:`block` says which part.

    A part is sliced from the stack itself: slices of one layer's matrix would be several readers of it, for which a
    TPU first copies the whole matrix.
    """

    stack: Array
    layer: Any

    def block(self, rows: slice, columns: slice) -> Array:
        """The static part [rows, columns]."""
        shape = self.stack.shape[1:]
        bounds = [each.indices(size)[:2] for each, size in zip((rows, columns), shape, strict=True)]
        (top, bottom), (left, right) = bounds
        part: Array = lax.dynamic_slice(self.stack, (self.layer, top, left), (1, bottom - top, right - left))[0]
        return part

    def whole(self) -> Array:
        """All of it."""
        return self.block(slice(None), slice(None))

    def of_chunks(self, axis: int, width: int, start: int, stop: int) -> "Stored":
        """Of every chunk of ``width`` rows (``axis`` 0) or columns (1) those from ``start`` to ``stop``, as a copy."""
        rows, columns = self.stack.shape[1:]
        cut = self.whole().reshape((-1, width, columns) if axis == 0 else (rows, -1, width))
        cut = lax.slice_in_dim(cut, start, stop, axis=axis + 1)
        return Stored(cut.reshape((1, -1, columns) if axis == 0 else (1, rows, -1)), 0)


class Part(NamedTuple):
    """What arrived: rows [offset, offset + size) of block ``block`` of the ring."""

    block: int
    offset: int
    values: Array


def project(plan: Plan, matmul: Matmul, x: Array, w: Stored, out_dtype: Any = None) -> Array:
    """x: [tokens, rows.gathered] · w: [rows.contracted, columns.produced] → [tokens, columns.scattered].

    In x's format, or in ``out_dtype``.
    """
    kind = out_dtype or x.dtype
    x, scale = quantize_tokens(plan, x, matmul.gathered)
    if plan.collectives == "plain":
        whole = all_gather(all_gather(w.whole(), matmul.contracted, 0), matmul.produced, 1)
        # The barrier keeps what made x (a norm) out of the product, which would compute it again for every tile.
        x = lax.optimization_barrier(all_gather(x, matmul.gathered, 1))
        out = product(plan, MATMUL, x, whole, kind if scale is None else jnp.float32)
        return reduce_scatter(dequantize(out, scale).astype(kind), matmul.scattered, 1)
    if plan.batch_axes:
        out = _circulate(plan, matmul, all_gather(x, matmul.gathered, 1), w.whole())
        return reduce_scatter(dequantize(out, scale).astype(kind), matmul.scattered, 1)
    before, after = ring_axes(matmul.gathered), ring_axes(matmul.scattered)
    if not before:
        x = lax.optimization_barrier(all_gather(x, matmul.gathered, 1))
    out = _around(plan, matmul._replace(gathered=before, scattered=after), x, w, scale, kind)
    return out if after else reduce_scatter(out, matmul.scattered, 1)


def ring_axes(axes: Axes) -> Axes:
    """The axes around which activations go in a loop: one axis, or none where a collective spans several.

    Along one axis every send is to a neighbour. A ring through several would use one axis's links at a time, where the
    compiler's own collective drives those of all, and its many small blocks would fill the matrix unit badly.
    """
    return axes if len(axes) == 1 else ()


def rolled(plan: Plan, mesh: Mesh, weights: Weights, matmuls: dict[str, Matmul]) -> Weights:
    """Roll each stationary matrix on its chip, so that its block r meets ring block r. Donates ``weights``."""
    if not plan.loops:
        return weights

    def roll(w: Weights) -> Weights:
        turned = dict(w)
        for name, matmul in matmuls.items():
            for axes, dim in ((ring_axes(matmul.gathered), 1), (ring_axes(matmul.scattered), 2)):
                size = turned[name].shape[dim] // plan.size(axes)
                turned[name] = jnp.roll(turned[name], -axis_index(axes) * size, dim)
        return turned

    specs = parameter_specs(plan)
    done: Weights = jax.jit(
        jax.shard_map(roll, mesh=mesh, in_specs=(specs,), out_specs=specs, check_vma=False), donate_argnums=0
    )(weights)
    return done


def arrivals(plan: Plan, x: Array, axes: Axes, dim: int) -> Iterator[Part]:
    """All shards of x along a ring, the chip's own first, each as soon as it is there."""
    size, shard = plan.size(axes), x.shape[dim]
    yield Part(0, 0, x)
    if size == 1:
        return
    if plan.collectives == "throughput" and shard > 1:
        half = shard // 2
        near, far = lax.slice_in_dim(x, 0, half, axis=dim), lax.slice_in_dim(x, half, shard, axis=dim)
        for step in range(1, size):
            near, far = _permute(plan, near, axes, -1), _permute(plan, far, axes, 1)
            yield Part(step, 0, near)
            yield Part(size - step, half, far)
    elif plan.collectives == "latency":
        after = before = x
        for step in range(1, size // 2 + 1):
            after = _permute(plan, after, axes, -1)
            yield Part(step, 0, after)
            if step != size - step:
                before = _permute(plan, before, axes, 1)
                yield Part(size - step, 0, before)
    else:
        for step in range(1, size):
            x = _permute(plan, x, axes, -1)
            yield Part(step, 0, x)


def sums(plan: Plan, partial: Callable[[slice], Array], axes: Axes, length: int, dtype: Any) -> Array:
    """Reduce-scatter of a product of ``length`` columns whose columns ``partial`` computes, in float32, as needed.

    Sums travel in ``dtype``; the result is this chip's block, block 0.
    """
    size = plan.size(axes)
    shard = length // size

    def block(number: int, start: int = 0, stop: int = shard) -> Array:
        first = number % size * shard
        return partial(slice(first + start, first + stop))

    def onward(x: Array, by: int) -> Array:
        return _permute(plan, x.astype(dtype), axes, by).astype(jnp.float32)

    if size == 1:
        return partial(slice(0, length)).astype(dtype)
    if plan.collectives == "throughput" and shard > 1:
        half = shard // 2
        down, up = block(1, 0, half), block(-1, half, shard)
        for step in range(2, size + 1):
            down = onward(down, -1) + block(step, 0, half)
            up = onward(up, 1) + block(-step, half, shard)
        return jnp.concatenate([down, up], axis=1).astype(dtype)
    if plan.collectives == "latency":
        after, before = size // 2, (size - 1) // 2
        total = None
        for by, hops in ((-1, after), (1, before)):
            moving = None
            for hop in range(hops, 0, -1):
                own = block(by * hop)
                moving = onward(own if moving is None else moving + own, by)
            if moving is not None:
                total = moving if total is None else total + moving
        own = block(0)
        return (own if total is None else own + total).astype(dtype)
    moving = block(1)
    for step in range(2, size + 1):
        moving = onward(moving, -1) + block(step)
    return moving.astype(dtype)


def _around(plan: Plan, matmul: Matmul, x: Array, w: Stored, scale: Array | None, kind: Any) -> Array:
    """Stationary weights: shards of x arrive beside the first block's partial products, sums leave beside the rest."""
    shard = x.shape[1]
    whole: list[Array] = []

    def partial(columns: slice) -> Array:
        if whole:
            return dequantize(product(plan, MATMUL, whole[0], w.block(slice(None), columns), jnp.float32), scale)
        out, parts = None, []
        for part in arrivals(plan, x, matmul.gathered, 1):
            start = part.block * shard + part.offset
            block = w.block(slice(start, start + part.values.shape[1]), columns)
            term = product(plan, MATMUL, part.values, block, jnp.float32)
            out = term if out is None else out + term
            parts.append((start, part.values))
        whole.append(_joined(parts))
        assert out is not None
        return dequantize(out, scale)

    return sums(plan, partial, matmul.scattered, w.stack.shape[2], kind)


def _circulate(plan: Plan, matmul: Matmul, x: Array, w: Array) -> Array:
    """Gathered weights: shards of w come around, columns in the outer ring and rows in the inner one; float32."""
    rows, columns = w.shape
    blocks = []
    for column_part in arrivals(plan, w, matmul.produced, 1):
        out = None
        for part in arrivals(plan, column_part.values, matmul.contracted, 0):
            source = (axis_index(matmul.contracted) + part.block) % plan.size(matmul.contracted)
            start = source * rows + part.offset
            mine = lax.dynamic_slice_in_dim(x, start, part.values.shape[0], axis=1)
            term = product(plan, MATMUL, mine, part.values, jnp.float32)
            out = term if out is None else out + term
        blocks.append((column_part.block * columns + column_part.offset, out))
    joined = _joined([(start, block) for start, block in blocks if block is not None])
    return jnp.roll(joined, axis_index(matmul.produced) * columns, 1) if matmul.produced else joined


def _joined(parts: Sequence[tuple[int, Array]]) -> Array:
    """Parts by where they start, side by side along dimension 1."""
    ordered = [values for _, values in sorted(parts, key=lambda part: part[0])]
    return jnp.concatenate(ordered, axis=1) if len(ordered) > 1 else ordered[0]


def _permute(plan: Plan, x: Array, axes: Axes, by: int) -> Array:
    """Every chip's x to the chip ``by`` places on along the ring of ``axes``, slowest first."""
    # ppermute counts chips in the mesh's order of axes, whatever the order in which they are named.
    named = tuple(sorted(axes))
    sizes = [plan.size((axis,)) for axis in axes]
    ring = []
    for place_on_ring in itertools.product(*map(range, sizes)):
        at = dict(zip(axes, place_on_ring, strict=True))
        number = 0
        for axis in named:
            number = number * plan.size((axis,)) + at[axis]
        ring.append(number)
    moves = [(chip, ring[(position + by) % len(ring)]) for position, chip in enumerate(ring)]
    return as_bytes(x, lambda sent: lax.ppermute(sent, named, moves))
