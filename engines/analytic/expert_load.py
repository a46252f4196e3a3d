"""How many rows and weights of experts the busiest chip has, in closed form.

T tokens go to k of N experts each, which lie on m chips or groups of chips (:mod:`engines.core.routing` has the law by
which they choose). Every collective waits for the busiest of them.
"""

from collections.abc import Callable

import numpy as np

from engines.analytic.grid import Floats, Grid
from engines.core.routing import busiest_share, distinct_experts

NEWTON_STEPS = 6


def expected_maximum(mean: Floats, variance: Floats, count: Floats, most: Floats) -> Floats:
    """Expected maximum of ``count`` sums of independent chances, each with that mean and variance, at most ``most``.

    μ + σ²·δ with σ²·((1 + δ)·ln(1 + δ) − δ) = ln count: where Bennett's inequality (1962) lets one sum in ``count`` be.
    For many sums of small chances it is the law of the fullest of ``count`` urns (Raab and Steger, "Balls into Bins",
    1998): μ + sqrt(2·μ·ln count) where the mean is large, ln count/ln(ln count/μ) where it is small.
    """
    target = np.log(np.maximum(count, 1.0)) / np.maximum(variance, 1e-12)
    # From above, where the function is convex, Newton's steps come down to the root without passing it.
    delta = np.sqrt(2 * target) + target / np.log(np.maximum(target, np.e))
    for _ in range(NEWTON_STEPS):
        wide = np.log1p(delta)
        delta = delta - ((1 + delta) * wide - delta - target) / np.maximum(wide, 1e-12)
    above = np.where(count > 1, variance * np.maximum(delta, 0.0), 0.0)
    return np.asarray(np.minimum(mean + above, np.maximum(most, mean)))


def busiest_rows(grid: Grid, tokens: Floats, shards: Floats) -> Floats:
    """Rows of the experts of the busiest of ``shards`` groups: T·k of one group, T·k/m and what chance adds of several.

    A token's choices differ, so that a group's rows of one token vary as drawing k of N without replacement does. With
    skew the busiest group has more by :func:`busiest_share`; a capacity c leaves at most c·T·k/m.
    """
    choices = tokens * grid.experts_per_token
    share = (
        _by_routing(
            grid,
            shards,
            lambda count, per_token, skew, parts: np.vectorize(
                lambda each: busiest_share(count, per_token, int(each), skew), otypes=[float]
            )(parts),
        )
        if np.any(grid.skew > 0)
        else 1 / shards
    )
    others = (grid.num_experts - grid.experts_per_token) / np.maximum(grid.num_experts - 1, 1.0)
    most = tokens * np.minimum(grid.experts_per_token, grid.num_experts / shards)
    rows = expected_maximum(choices * share, choices * share * (1 - share) * others, shards, most)
    return np.asarray(np.minimum(rows, np.where(grid.capacity > 0, grid.capacity, np.inf) * choices / shards))


def busiest_hit(grid: Grid, tokens: Floats, shards: Floats) -> Floats:
    """Experts of the busiest of ``shards`` groups that a token goes to, of N/m: their weights are read.

    A mean of N·(1 − (1 − k/N)^T)/m without skew, and what chance adds.
    """
    count, chosen = np.maximum(grid.num_experts, 1.0), grid.experts_per_token
    if np.any(grid.skew > 0):
        all_hit = _by_routing(grid, tokens, lambda n, k, skew, of: distinct_experts(n, k, of, skew))
    else:
        all_hit = count * (1 - (1 - chosen / count) ** tokens)
    mean, share = all_hit / shards, all_hit / count
    # One token alone hits k different experts; their number does not vary, and so their number on a group does less.
    others = np.where(tokens <= 1, (count - chosen) / np.maximum(count - 1, 1.0), 1.0)
    hit = expected_maximum(mean, mean * (1 - share) * others, shards, count / shards)
    return np.asarray(np.minimum(hit, busiest_possible(grid, tokens)))


def busiest_possible(grid: Grid, tokens: Floats) -> Floats:
    """Most experts that T tokens hit: T·k, or all."""
    return np.minimum(tokens * grid.experts_per_token, np.maximum(grid.num_experts, 1.0))


def _by_routing(grid: Grid, of: Floats, law: Callable[[int, int, float, Floats], Floats]) -> Floats:
    """``law`` (of N, k, skew and the values ``of``) for every point: once for each value of each kind of routing."""
    count, chosen, skew, values = np.broadcast_arrays(grid.num_experts, grid.experts_per_token, grid.skew, of)
    found = np.zeros(values.shape)
    kinds, place = np.unique(np.stack([count, chosen, skew]), axis=1, return_inverse=True)
    for index, (experts, per_token, exponent) in enumerate(kinds.T):
        mine = np.ravel(place) == index
        if experts:
            different, back = np.unique(values[mine], return_inverse=True)
            found[mine] = law(int(experts), int(per_token), float(exponent), different)[np.ravel(back)]
    return found
