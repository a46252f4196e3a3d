"""Sums on every chip by exchange between pairs, instead of an all-reduce: fewer steps, more bytes.

An all-reduce passes parts of the sum around each axis of n chips twice, 2·(n − 1) steps. Here the chips of an axis
exchange whole sums in log₂ n steps, each with a chip of the other half of ever larger groups (recursive doubling:
Thakur, Rabenseifner and Gropp 2005, section 4.1). The partner is 1, 2, 4 … places away on a line, n − 1 hops in all; on
a ring it is the mirrored one of the group, a neighbour at the ends of the ring: 2 hops for four chips. A hop passes on
everything, so this is faster only where there is little to send. A half of the columns visits the axes in the opposite
order, so that links of two axes are busy at once.
"""

from collections.abc import Sequence
from typing import Final

import jax.numpy as jnp
from jax import Array, lax

from engines.core.layout import variant_of
from engines.transformer.params.memory_layout import LANES
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan

EXCHANGED_BYTES: Final = 1 << 18
"""Above this an all-reduce is as fast on 16 TPUs v5e, v5p and v6e, by the compiled timeline."""


def whole_sum(plan: Plan, x: Array, axes: Axes) -> Array:
    """x: […, columns] {unreduced over axes} → the sum, on every chip, as the plan's collectives run; x without axes.

    An axis whose chips are no power of two has an all-reduce, and so has a sum of more than :data:`EXCHANGED_BYTES`.
    """
    if not axes:
        return x
    if not variant_of(plan.collectives).exchanges or x.nbytes > EXCHANGED_BYTES:
        whole: Array = lax.psum(x, axes)
        return whole
    paired = tuple(axis for axis in axes if plan.axes.size((axis,)).bit_count() == 1)
    rest = tuple(axis for axis in axes if axis not in paired)
    x = lax.psum(x, rest) if rest else x
    order = sorted(paired, key=lambda axis: -plan.axes.size((axis,)))
    if len(order) < 2 or x.shape[-1] % (2 * LANES):
        return _summed(plan, x, order)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([_summed(plan, first, order), _summed(plan, second, order[::-1])], axis=-1)


def partners(size: int, *, ring: bool) -> list[list[int]]:
    """Step by step, the chip with which each of ``size`` (a power of two) along an axis exchanges its sum."""
    steps = size.bit_length() - 1
    return [[chip ^ ((2 << step) - 1 if ring else 1 << step) for chip in range(size)] for step in range(steps)]


def _summed(plan: Plan, x: Array, axes: Sequence[str]) -> Array:
    for axis in axes:
        for step in partners(plan.axes.size((axis,)), ring=plan.is_ring(axis)):
            theirs = lax.ppermute(x, axis, list(enumerate(step)))
            x = (x.astype(jnp.float32) + theirs.astype(jnp.float32)).astype(x.dtype)
    return x
