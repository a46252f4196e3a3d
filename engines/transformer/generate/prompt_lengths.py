"""How long the prompts of a batch are: drawn by seed, the same for every layout and way of reading."""

import math
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.weights.random import hashed_uniform

DISTRIBUTIONS: Final = ("uniform", "lognormal")
MEDIAN: Final = 0.3
SPREAD: Final = 0.8


def draw_lengths(distribution: str, batch_size: int, most: int, seed: int) -> NDArray[np.int32]:
    """Tokens of each prompt [batch_size], from 1 to ``most``.

    ``uniform``: every length alike, so that the mean is about a half of ``most``. ``lognormal``: many short prompts and
    few long ones, as people write them: the logarithm is normal around that of 0.3·``most`` with a standard deviation
    of 0.8, longer ones are cut, and the mean is about 0.38 of ``most``.
    """
    uniform = hashed_uniform(f"lengths {distribution}", (batch_size,), seed, [slice(None)])
    if distribution == "uniform":
        return np.asarray(1 + np.floor(uniform * most), np.int32)
    normal = NormalDist(math.log(MEDIAN), SPREAD)
    # In the middle of each of the 2²⁴ steps of the uniform numbers: 0 has no logarithm.
    ratio = [math.exp(normal.inv_cdf(float(each) + 2.0**-25)) for each in uniform]
    return np.asarray(np.clip(np.ceil(np.asarray(ratio) * most), 1, most), np.int32)
