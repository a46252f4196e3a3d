"""How many turns speculative decoding takes, where each proposed token is accepted with the same probability.

A turn proposes γ tokens and verifies them in one pass. Those before the first rejection are kept, and the pass yields
one more: 1 to γ + 1 tokens (Leviathan, Kalman and Matias 2023, "Fast inference from Transformers via speculative
decoding"). α is the probability that a proposed token is accepted, independent of all others.
"""

import numpy as np
from numpy.typing import NDArray


def tokens_per_turn(acceptance_rate: float, draft_len: int) -> float:
    """Mean tokens of a turn, (1 − α^(γ+1)) / (1 − α): equation 1 of Leviathan et al.; γ + 1 where α is 1."""
    return sum(acceptance_rate**number for number in range(draft_len + 1))


def token_chances(acceptance_rate: float, draft_len: int) -> NDArray[np.float64]:
    """The probability that a turn yields 1, 2, …, γ + 1 tokens: α^(k−1)·(1 − α), and α^γ of all of them."""
    powers = acceptance_rate ** np.arange(draft_len + 1)
    return np.asarray(powers * np.append(np.full(draft_len, 1 - acceptance_rate), 1.0))


def turns_until(acceptance_rate: float, draft_len: int, tokens: int, sequences: int = 1) -> float:
    """Mean turns until each of ``sequences`` has ``tokens``: a batch ends with the slowest of them.

    E[max] = Σ_t 1 − P(a sequence is done after t turns)^sequences, with the distribution of the tokens after t turns
    by convolution, so that it is exact for any batch.
    """
    if tokens <= 0:
        return 0.0
    chances = token_chances(acceptance_rate, draft_len)
    # Probability of having 0, 1, …, tokens − 1 tokens: those that are not done.
    behind = np.zeros(tokens)
    behind[0] = 1.0
    turns = 0.0
    while (left := float(behind.sum())) > 1e-12:
        turns += 1 - (1 - min(left, 1.0)) ** sequences
        behind = np.convolve(behind, np.append(0.0, chances))[:tokens]
    return turns
