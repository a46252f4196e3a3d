"""How far logits are from a reference's, whichever engine made them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.core.point import Point

Logits = NDArray[np.float64]
CHECKED_SCORES: Final = 1 << 26
"""Attention scores that the reference may hold at once: it checks as many sequences as fit, evenly spaced."""


def checked_rows(point: Point, positions: int) -> NDArray[np.int64]:
    """Indices of the sequences of so many positions that are compared."""
    most = max(1, CHECKED_SCORES // (positions * positions * point.model.num_heads))
    return np.unique(np.linspace(0, point.batch_size - 1, min(most, point.batch_size)).astype(np.int64))


def relative_error(expected: Logits, output: Logits) -> float:
    """max|output − expected| / max|expected|."""
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def log_probabilities(logits: Logits) -> Logits:
    """Of every id, over the last axis."""
    found: Logits = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return found


def kl_divergence(expected: Logits, output: Logits) -> float:
    """Mean of KL(expected ‖ output) over all but the last axis, in nats."""
    p, q = log_probabilities(expected), log_probabilities(output)
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def agreement(expected: Logits, output: Logits) -> float:
    """Share of positions at which both have the same likeliest id."""
    return float((expected.argmax(axis=-1) == output.argmax(axis=-1)).mean())
