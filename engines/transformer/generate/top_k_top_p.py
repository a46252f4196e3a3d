"""Which ids the next token is sampled from: top-k, and then top-p of those.

Both keep the first ids in the order of (score descending, id ascending): the fewest whose weights reach a target, with
weight 1 and target k, or with their probability and p. For a small k every chip's k most likely ids are gathered.
Otherwise the threshold is found digit by digit, as in a radix select: each round sums over the chips the weight of the
ids above each value of the digit. Weights are integers, so that the sums do not depend on the order of addition.
"""

from typing import Final, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engines.transformer.comm.collectives import all_gather, all_reduce
from engines.transformer.options import Sampling
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan

FEW_RATIO: Final = 4
"""The k most likely ids of every chip are gathered if they are at most the vocabulary divided by this."""
PROBABILITY_ONE: Final = 1 << 31
"""A probability of 1 in integer weight: finer than float32, and the sum over all ids fits 32 bits."""
ORDER_BITS: Final = 32
"""Bits of a float32, as mapped by :func:`_sortable`."""


class Candidates(NamedTuple):
    """Scores (see :func:`comparable`) and their ids, [batch, count.axes]; ``ordered``: the most likely first."""

    scores: Array
    ids: Array
    axes: Axes
    ordered: bool = False


def gathers_few(plan: Plan, sampling: Sampling) -> bool:
    """Whether the ``top_k`` most likely ids of all chips are few compared to the vocabulary."""
    return 0 < sampling.top_k * plan.chips * FEW_RATIO <= plan.padded.vocab


def comparable(scores: Array) -> Array:
    """``scores`` with 0 for −0 and for subnormals, which some devices treat as 0 in comparisons."""
    return jnp.where(jnp.abs(scores) < np.finfo(np.float32).tiny, 0.0, scores)


def top_candidates(candidates: Candidates, count: int) -> Candidates:
    """The first ``count`` of all candidates, in order, on every chip.

    ``top_k`` puts the lowest id of ties first; gathered in chip order, this holds across chips.
    """
    scores, where = lax.top_k(candidates.scores, min(count, candidates.scores.shape[1]))
    scores = all_gather(scores, candidates.axes, 1)
    ids = all_gather(jnp.take_along_axis(candidates.ids, where, axis=1), candidates.axes, 1)
    scores, where = lax.top_k(scores, count)
    return Candidates(scores, jnp.take_along_axis(ids, where, axis=1), (), ordered=True)


def kept_mask(plan: Plan, candidates: Candidates, scaled: Array, top_k: int, top_p: float) -> Array:
    """Which candidates are kept, bool [batch, count.axes]; ``top_k`` 0 and ``top_p`` 1 keep all.

    ``scaled``: (score − highest score) / temperature.
    """
    kept = jnp.isfinite(candidates.scores)
    if top_k:
        kept &= _first(plan, candidates, kept.astype(jnp.uint32), top_k)
    if top_p < 1:
        weight = jnp.where(kept, jnp.exp(scaled), 0)
        share = weight / all_reduce(weight.sum(axis=1), candidates.axes)[:, None]
        units = jnp.round(share * float(PROBABILITY_ONE)).astype(jnp.uint32)
        kept &= _first(plan, candidates, units, max(1, round(top_p * PROBABILITY_ONE)))
    return kept


def _first(plan: Plan, candidates: Candidates, weight: Array, target: int) -> Array:
    """The fewest first candidates whose weights (uint32) reach ``target``; all, if none do."""
    scores, ids, axes, ordered = candidates
    if ordered:
        first: Array = jnp.cumsum(weight, axis=1) - weight < jnp.uint32(target)
        return first
    wanted = jnp.minimum(all_reduce(weight.sum(axis=1), axes), jnp.uint32(target))
    order = _sortable(scores)
    threshold = _threshold(axes, order, weight, wanted, ORDER_BITS)[:, None]
    above, equal = order > threshold, order == threshold
    # Among candidates with the threshold score, the lowest ids.
    wanted -= all_reduce(jnp.where(above, weight, 0).sum(axis=1), axes)
    bits = plan.padded.vocab.bit_length()
    order = (1 << bits) - 1 - ids.astype(jnp.uint32)
    threshold = _threshold(axes, order, jnp.where(equal, weight, 0), wanted, bits)[:, None]
    return above | (equal & (order >= threshold))


def _threshold(axes: Axes, order: Array, weight: Array, wanted: Array, bits: int) -> Array:
    """The largest threshold [batch] such that candidates with ``order`` ≥ threshold have at least ``wanted`` weight.

    ``order``: uint32 below 2^bits. Digits are found from the most significant on: two bits a round where rounds
    communicate, which halves their number, one bit a round on a single chip, which is the least work.
    """
    width = 2 if axes else 1
    rounds, values = -(-bits // width), jnp.arange(1, 1 << width, dtype=jnp.uint32)

    def digit(number: Array, found: Array) -> Array:
        shift = ((rounds - 1 - number) * width).astype(jnp.uint32)
        tried = found[:, None] + (values << shift)
        held = jnp.where(order[:, None] >= tried[..., None], weight[:, None], 0).sum(axis=2)
        enough = all_reduce(held, axes) >= wanted[:, None]
        return found + (enough.sum(axis=1, dtype=jnp.uint32) << shift)

    threshold: Array = lax.fori_loop(0, rounds, digit, jnp.zeros_like(wanted))
    return threshold


def _sortable(scores: Array) -> Array:
    """uint32 that sort as the float32 ``scores``: the sign bit flipped, all bits flipped for negative numbers."""
    bits = lax.bitcast_convert_type(scores, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))
