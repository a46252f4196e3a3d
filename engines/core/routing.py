"""How a router's choices spread over experts, in closed form: how many are hit, and how loaded is the busiest chip.

Each token goes to k = ``per_token`` different ones of N = ``num_experts`` experts, independently of other tokens; the
expert of rank r is one of them with the probability π_r = min(1, c/r^s), where Σπ = k. With skew s = 0 that is k/N for
each, and s is that of the Zipf law which choices follow.
"""

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


BALANCED: Final = re.compile(r"balanced_rows_([\d.]+)_experts_([\d.]+)")
"""The scope of :func:`balanced_scope` in the metadata of a compiled instruction: rows, and experts that have some."""


def balanced_scope(rows: float, experts: float) -> str:
    """A name that tells a reader of the compiled program how many rows and experts a ragged matmul is expected to have.

    Neither follows from the program, whose buffers hold every row that there may be.
    """
    return f"balanced_rows_{rows:.2f}_experts_{experts:.2f}"


TURNS: Final = re.compile(r'balanced_turns_(\d+)/while"')
"""The scope of :func:`turns_scope` in the metadata of the loop that it names, and not of a loop inside that one."""


def turns_scope(turns: int) -> str:
    """A name that tells a reader of the compiled program how often a loop is expected to turn.

    That does not follow from the program where it depends on how tokens choose their experts.
    """
    return f"balanced_turns_{turns}"


@lru_cache(maxsize=256)
def _chosen(num_experts: int, per_token: int, skew: float) -> "NDArray[np.float64]":
    import numpy as np

    ranks = np.arange(1, num_experts + 1, dtype=np.float64)
    capped = 0
    # The experts that every token chooses are the first ranks; the law holds among the others. Weights relative to the
    # first of those: it has 1, so that no skew makes a sum of 0.
    while True:
        weights = (ranks[capped:] / ranks[min(capped, num_experts - 1)]) ** -skew
        rest = (per_token - capped) * weights / weights.sum()
        if not len(rest) or rest[0] <= 1:
            break
        capped += int((rest > 1).sum())
    shares = np.concatenate([np.ones(capped), rest])
    shares.setflags(write=False)
    return shares


def choice_probabilities(num_experts: int, per_token: int, skew: float = 0.0) -> "NDArray[np.float64]":
    """[N] π_r of each expert, the most popular first: the probability that it is among a token's k."""
    return _chosen(num_experts, per_token, float(skew))


def distinct_experts(num_experts: int, per_token: int, tokens: Any, skew: float = 0.0) -> Any:
    """Expected number of experts that at least one of T = ``tokens`` chooses: Σ 1 − (1 − π)^T.

    N·(1 − (1 − k/N)^T) without skew. ``tokens`` may be an array; so is then the result.
    """
    import numpy as np

    missed = 1 - choice_probabilities(num_experts, per_token, skew)
    return (1 - missed ** np.asarray(tokens, np.float64)[..., None]).sum(-1)


def expected_blocks(num_experts: int, per_token: int, tokens: int, rows: int) -> float:
    """Expected blocks of up to ``rows`` rows that the experts' rows fill, each block of one expert: Σ E[⌈n/rows⌉].

    An expert has n rows of ``tokens``, binomial with π = k/N, so that E[⌈n/rows⌉] = Σ_j P(n > j·rows): the first term
    is :func:`distinct_experts`.
    """
    import numpy as np
    from scipy.special import bdtrc

    passed = np.arange(0, tokens, rows)
    return float(num_experts * bdtrc(passed, tokens, per_token / num_experts).sum())


def busiest_share(num_experts: int, per_token: int, shards: int, skew: float = 0.0) -> float:
    """Share of all choices that go to the busiest of ``shards`` equal groups of experts; 1/shards without skew.

    Experts are dealt to groups by rank, back and forth, as a placement that balances them would.
    """
    import numpy as np

    rounds = choice_probabilities(num_experts, per_token, skew).reshape(-1, shards).copy()
    rounds[1::2] = rounds[1::2, ::-1]
    return float(np.max(rounds.sum(0)) / per_token)
