"""From the residual stream to whole tokens of a chip's own, which it sends to their experts, and back.

A chip of the expert axes has a part of E of all tokens of its group: an all-to-all exchanges that for all of E of a
part of the tokens.
"""

from jax import Array, lax

from engines.transformer.comm.collectives import all_gather, local_shard, reduce_scatter
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan


def to_tokens(plan: Plan, x: Array) -> Array:
    """x: [tokens.batch, E.residual] → [tokens.batch.spread, E.embed], for experts that tokens are sent to."""
    here, axes = plan.experts, plan.axes
    exchanged, gathered, cut = _moves(plan)
    if cut:
        x = local_shard(x, cut, 0, axes.size(cut))
    if not exchanged:
        return all_gather(x, gathered, 1)
    x = lax.all_to_all(x, exchanged, split_axis=0, concat_axis=1, tiled=True)
    x = all_gather(x, gathered, 1)
    return _reordered(plan, x, gathered + exchanged, here.whole)


def from_tokens(plan: Plan, x: Array) -> Array:
    """x: [tokens.batch.spread, E.embed] {unreduced over an expert's F} → [tokens.batch, E.residual]."""
    axes, (exchanged, gathered, cut) = plan.axes, _moves(plan)
    if exchanged:
        x = _reordered(plan, x, plan.experts.whole, gathered + exchanged)
    x = reduce_scatter(x, gathered, 1)
    summed = tuple(axis for axis in axes.summed if axis not in cut)
    x = lax.psum(x, summed) if summed else x
    if exchanged:
        x = lax.all_to_all(x, exchanged, split_axis=1, concat_axis=0, tiled=True)
    return all_gather(x, cut, 0)


def _moves(plan: Plan) -> tuple[Axes, Axes, Axes]:
    """Axes over which E is exchanged for tokens, those over which E is gathered, those over which tokens are cut."""
    here, axes = plan.experts, plan.axes
    exchanged = tuple(axis for axis in here.whole if axis in here.spread)
    gathered = tuple(axis for axis in here.whole if axis not in here.spread)
    return exchanged, gathered, tuple(axis for axis in here.spread if axis not in axes.residual)


def _reordered(plan: Plan, x: Array, axes: Axes, wanted: Axes) -> Array:
    """Columns of x in the order of shards of ``axes``, slowest first → in that of the same axes ``wanted``."""
    if axes == wanted:
        return x
    sizes = [plan.axes.size((axis,)) for axis in axes]
    apart = x.reshape(len(x), *sizes, -1)
    turned = apart.transpose([0, *(1 + axes.index(axis) for axis in wanted), apart.ndim - 1])
    return turned.reshape(x.shape)
