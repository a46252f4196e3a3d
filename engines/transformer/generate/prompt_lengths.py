"""Prompt lengths of a batch, drawn by seed: the same for every layout and prefill option."""

import math
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.weights.random import hashed_uniform

DISTRIBUTIONS: Final = ("uniform", "lognormal")
MEDIAN: Final = 0.3
LOG_STD: Final = 0.8


def draw_lengths(distribution: str, batch_size: int, max_len: int, seed: int) -> NDArray[np.int32]:
    """Tokens of each prompt [batch_size], from 1 to ``max_len``.

    ``uniform``: every length is equally likely; the mean is about half of ``max_len``. ``lognormal``: many short
    prompts and few long ones, as in real traffic: median 0.3·``max_len``, standard deviation of the logarithm 0.8,
    clipped to ``max_len``; the mean is about 0.38·``max_len``.
    """
    uniform = hashed_uniform(f"lengths {distribution}", (batch_size,), seed, [slice(None)])
    if distribution == "uniform":
        return np.asarray(1 + np.floor(uniform * max_len), np.int32)
    normal = NormalDist(math.log(MEDIAN), LOG_STD)
    # The middle of each of the 2²⁴ uniform steps, so that none is 0, whose quantile is infinite.
    ratio = [math.exp(normal.inv_cdf(float(each) + 2.0**-25)) for each in uniform]
    return np.asarray(np.clip(np.ceil(np.asarray(ratio) * max_len), 1, max_len), np.int32)
