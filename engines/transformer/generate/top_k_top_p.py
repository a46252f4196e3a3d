"""Which ids stay in the draw of the next token: top-k, and then top-p of what that leaves.

Both keep the first ids in the order of (score descending, id ascending): the fewest whose weights reach a target,
with weight 1 and target k, or with their probability and p. A small k is taken from every chip's own k likeliest,
which alone are gathered. Else where the order is to be cut is found digit by digit, as radix sort orders numbers: each
round adds up over the chips what the ids above each value of the digit weigh. Weights are whole numbers, so that the
sums are the same in whatever order they are added.
"""

from typing import Final, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engines.transformer.comm.collectives import all_gather, all_reduce
from engines.transformer.options import Sampling
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan

FEW: Final = 4
"""The likeliest ids of all chips are gathered where they are at most the vocabulary over this."""
WHOLE: Final = 1 << 31
"""A probability of 1 in units of weight: finer than float32, and all of them together fit 32 bits."""
ORDER_BITS: Final = 32
"""Those of a float32, which sort as it does."""


class Contenders(NamedTuple):
    """Scores, :func:`comparable`, and their ids, [batch, count.axes]; whether the likeliest stand first."""

    scores: Array
    ids: Array
    axes: Axes
    ordered: bool = False


def takes_few(plan: Plan, sampling: Sampling) -> bool:
    """Whether every chip's ``top_k`` likeliest ids are few beside the vocabulary."""
    return 0 < sampling.top_k * plan.chips * FEW <= plan.padded.vocab


def comparable(scores: Array) -> Array:
    """``scores`` with 0 for −0 and for subnormal numbers, which some devices take for 0 when they compare."""
    return jnp.where(jnp.abs(scores) < np.finfo(np.float32).tiny, 0.0, scores)


def likeliest(drawn: Contenders, count: int) -> Contenders:
    """The first ``count`` of all, in order, on every chip.

    A chip's own come with the lowest of equals first, and so do all chips' one after the other.
    """
    scores, where = lax.top_k(drawn.scores, min(count, drawn.scores.shape[1]))
    scores = all_gather(scores, drawn.axes, 1)
    ids = all_gather(jnp.take_along_axis(drawn.ids, where, axis=1), drawn.axes, 1)
    scores, where = lax.top_k(scores, count)
    return Contenders(scores, jnp.take_along_axis(ids, where, axis=1), (), ordered=True)


def narrow(plan: Plan, drawn: Contenders, scaled: Array, top_k: int, top_p: float) -> Array:
    """Which contenders stay, [batch, count.axes]; ``top_k`` 0 and ``top_p`` 1 keep all.

    ``scaled``: their scores by temperature, 0 at the highest.
    """
    kept = jnp.isfinite(drawn.scores)
    if top_k:
        kept &= _first(plan, drawn, kept.astype(jnp.uint32), top_k)
    if top_p < 1:
        weight = jnp.where(kept, jnp.exp(scaled), 0)
        share = weight / all_reduce(weight.sum(axis=1), drawn.axes)[:, None]
        units = jnp.round(share * float(WHOLE)).astype(jnp.uint32)
        kept &= _first(plan, drawn, units, max(1, round(top_p * WHOLE)))
    return kept


def _first(plan: Plan, drawn: Contenders, weight: Array, target: int) -> Array:
    """The fewest first contenders whose weights (uint32) reach ``target``; all, if none do."""
    scores, ids, axes, ordered = drawn
    if ordered:
        first: Array = jnp.cumsum(weight, axis=1) - weight < jnp.uint32(target)
        return first
    wanted = jnp.minimum(all_reduce(weight.sum(axis=1), axes), jnp.uint32(target))
    order = _ordered(scores)
    cut = _cut(axes, order, weight, wanted, ORDER_BITS)[:, None]
    above, equal = order > cut, order == cut
    # Of those with the score at which it is cut, the lowest ids.
    wanted -= all_reduce(jnp.where(above, weight, 0).sum(axis=1), axes)
    bits = plan.padded.vocab.bit_length()
    order = (1 << bits) - 1 - ids.astype(jnp.uint32)
    cut = _cut(axes, order, jnp.where(equal, weight, 0), wanted, bits)[:, None]
    return above | (equal & (order >= cut))


def _cut(axes: Axes, order: Array, weight: Array, wanted: Array, bits: int) -> Array:
    """The highest number [batch] with which contenders of that ``order`` and higher weigh as much as is ``wanted``.

    ``order``: uint32 below 2^bits. Digits are found from the first on, each by what its values above 0 leave: of two
    bits where a round waits for other chips, of one where only its work counts.
    """
    width = 2 if axes else 1
    rounds, values = -(-bits // width), jnp.arange(1, 1 << width, dtype=jnp.uint32)

    def digit(number: Array, found: Array) -> Array:
        shift = ((rounds - 1 - number) * width).astype(jnp.uint32)
        tried = found[:, None] + (values << shift)
        held = jnp.where(order[:, None] >= tried[..., None], weight[:, None], 0).sum(axis=2)
        enough = all_reduce(held, axes) >= wanted[:, None]
        return found + (enough.sum(axis=1, dtype=jnp.uint32) << shift)

    cut: Array = lax.fori_loop(0, rounds, digit, jnp.zeros_like(wanted))
    return cut


def _ordered(scores: Array) -> Array:
    """uint32 in the order of the float32 ``scores``: the sign's bit turned, below zero all bits."""
    bits = lax.bitcast_convert_type(scores, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))
