"""Attention with linear biases, ALiBi (Press et al. 2022, arXiv 2108.12409)."""

import math


def slopes(num_heads: int) -> tuple[float, ...]:
    """What each head's scores lose for a position of distance.

    Of n = 2^k heads, head h has 2^(−8(h+1)/n). Of others the first 2^k have those of 2^k heads, and the rest every
    second one of 2^(k+1) heads, as in the authors' code and BLOOM's.
    """
    power = 2 ** math.floor(math.log2(num_heads))
    found = [2.0 ** (-8 * (head + 1) / power) for head in range(power)]
    rest = [2.0 ** (-8 * (head + 1) / (2 * power)) for head in range(0, 2 * (num_heads - power), 2)]
    return tuple(found + rest)
