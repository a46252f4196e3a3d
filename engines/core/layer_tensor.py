"""One tensor of a layer, as every engine names and shapes it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerTensor:
    """``fan_in`` values are summed into each result; 0 is a vector: a norm's scale, or a bias.

    The result is hidden, or it joins the residual stream.
    """

    name: str
    shape: tuple[int, ...]
    fan_in: int
    joins_residual: bool = False
    is_scale: bool = False

    @property
    def size(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)
