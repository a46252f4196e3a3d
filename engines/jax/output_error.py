"""Error of logits against a reference, and bfloat16 weights as a reference for quantized runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engines.weights.random import Floats, Source, Tensor, values


@dataclass(frozen=True, slots=True)
class Bfloat16:
    """The weights of ``source`` rounded to bfloat16: what an unquantized plan would use."""

    source: Source

    def read(self, tensor: Tensor, index: Sequence[slice]) -> Floats:
        """``tensor[index]`` rounded to bfloat16, as float32."""
        rounded: Floats = values(tensor, self.source, index).astype(jnp.bfloat16).astype(np.float32)
        return rounded


def relative_error(expected: NDArray[np.float64], output: NDArray[np.float64]) -> float:
    """max|output − expected| / max|expected|."""
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def kl_divergence(expected: NDArray[np.float64], output: NDArray[np.float64]) -> float:
    """Mean of KL(expected ‖ output) over all but the last axis, in nats; both are logits."""
    p, q = (each - np.logaddexp.reduce(each, axis=-1, keepdims=True) for each in (expected, output))
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def agreement(expected: NDArray[np.float64], output: NDArray[np.float64]) -> float:
    """Share of positions at which both have the same likeliest id; both are logits."""
    return float((expected.argmax(axis=-1) == output.argmax(axis=-1)).mean())
