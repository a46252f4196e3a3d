"""Prompt lengths of a batch: drawn by seed, the same for every engine, and their means in closed form.

With u = length / ``max_len``, a law is P(u > t) on [0, 1); a length is ⌈u · max_len⌉. ``equal``: all have ``max_len``.
``uniform``: every length is equally likely. ``lognormal``: many short prompts and few long ones, median 0.3 and
standard deviation of the logarithm 0.8, clipped at 1. ``trace``: the requests of chats, by a rule and not recorded: a
chat has 1 to 8 turns, each as often, and every turn is a request that carries all turns before it, so that a request of
k turns is k/8 of the longest; of 36 requests 9 − k are such.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.core.point import Point
from engines.weights.random import hashed_uniform

MEDIAN: Final = 0.3
LOG_STD: Final = 0.8
TURNS: Final = 8


@dataclass(frozen=True, slots=True)
class Moments:
    """Means over the law of a prompt's length and of its square."""

    mean: float
    mean_square: float

    @property
    def keys_a_token(self) -> float:
        """E[length²] / E[length]: the length of the prompt that a token, picked among all tokens, belongs to."""
        return self.mean_square / self.mean


def draw_lengths(law: str, batch_size: int, max_len: int, seed: int) -> NDArray[np.int32]:
    """Tokens of each prompt [batch_size], from 1 to ``max_len``; sequence b does not depend on ``batch_size``."""
    if law == "equal":
        return np.full(batch_size, max_len, np.int32)
    uniform = hashed_uniform(f"lengths {law}", (batch_size,), seed, [slice(None)]).astype(np.float64)
    if law == "uniform":
        return np.asarray(1 + np.floor(uniform * max_len), np.int32)
    # The middle of each of the 2²⁴ uniform steps, so that none is 0, whose quantile is infinite.
    middle = uniform + 2.0**-25
    if law == "trace":
        shares = np.searchsorted(_turn_ends(), middle) + 1
        return np.asarray(-(-shares * max_len // TURNS), np.int32)
    normal = NormalDist(math.log(MEDIAN), LOG_STD)
    ratio = np.asarray([math.exp(normal.inv_cdf(float(each))) for each in middle])
    return np.asarray(np.clip(np.ceil(ratio * max_len), 1, max_len), np.int32)


def lengths_of(point: Point, seed: int) -> NDArray[np.int32]:
    """The lengths of a point's prompts [batch_size]."""
    return draw_lengths(point.lengths, point.batch_size, point.input_len, seed)


def counted(point: Point, real: int) -> int:
    """Tokens of the phase that rates count, where all prompts together have ``real`` ones: no padding."""
    return point.tokens - (0 if point.phase == "decode" else point.batch_size * point.input_len - real)


@lru_cache(maxsize=1024)
def moments(law: str, max_len: int) -> Moments:
    """The exact means of :func:`draw_lengths` over all seeds: E[l^m] = Σ_k (k^m − (k − 1)^m) · P(l ≥ k)."""
    if law == "equal":
        return Moments(float(max_len), float(max_len) ** 2)
    if law == "uniform":
        return Moments((max_len + 1) / 2, (max_len + 1) * (2 * max_len + 1) / 6)
    if law == "trace":
        weights = np.diff(_turn_ends(), prepend=0.0)
        sizes = -(-np.arange(1, TURNS + 1) * max_len // TURNS)
        return Moments(float(weights @ sizes), float(weights @ sizes.astype(np.float64) ** 2))
    normal = NormalDist(math.log(MEDIAN), LOG_STD)
    above = np.asarray([1.0] + [1 - normal.cdf(math.log(k / max_len)) for k in range(1, max_len)])
    return Moments(float(above.sum()), float((2 * np.arange(1, max_len + 1) - 1) @ above))


def _turn_ends() -> NDArray[np.float64]:
    """P(a request carries at most k turns) for k = 1 … 8."""
    requests = np.arange(TURNS, 0, -1, dtype=np.float64)
    ends: NDArray[np.float64] = np.cumsum(requests / requests.sum())
    return ends
