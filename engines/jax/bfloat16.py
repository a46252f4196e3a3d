"""Weights rounded to bfloat16: the reference of quantized runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from engines.weights.random import Floats, Source, Tensor, values


@dataclass(frozen=True, slots=True)
class Bfloat16:
    """The weights of ``source`` rounded to bfloat16: what an unquantized plan would use."""

    source: Source

    def read(self, tensor: Tensor, index: Sequence[slice]) -> Floats:
        """``tensor[index]`` rounded to bfloat16, as float32."""
        rounded: Floats = values(tensor, self.source, index).astype(jnp.bfloat16).astype(np.float32)
        return rounded
