"""How many layers tokens pass that leave early, where each leaves at an exit layer with the same probability.

After every e of L layers there is an exit layer, but after the last: ⌈L/e⌉ − 1 of them. r is the probability that a
token leaves at one that it comes to, independent of all others, so that k of them are passed with (1 − r)^k. A step of
B sequences goes on until its last token has left: some of them are left after k with 1 − (1 − (1 − r)^k)^B.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from engines.core.point import Point


@dataclass(frozen=True)
class Leaving:
    """Of ``sequences`` each token leaves with probability ``rate`` after every ``every`` of ``layers``."""

    layers: int
    every: int
    rate: float
    sequences: int

    @property
    def exits(self) -> int:
        """Exit layers: ⌈L/e⌉ − 1."""
        return -(-self.layers // self.every) - 1

    @cached_property
    def parts(self) -> NDArray[np.int64]:
        """Layers up to each exit and from the last of them on, [exits + 1]."""
        return np.append(np.full(self.exits, self.every), self.layers - self.exits * self.every)

    def stays(self, sequences: int) -> NDArray[np.float64]:
        """The probability that some of ``sequences`` have not left after 0, 1, … exit layers, [exits + 1]."""
        one = (1 - self.rate) ** np.arange(self.exits + 1)
        return np.asarray(1 - (1 - one) ** sequences)

    @property
    def mean_layers(self) -> float:
        """Layers that a token passes."""
        return float(self.stays(1) @ self.parts)

    @property
    def layers_of_a_step(self) -> float:
        """Layers that a step runs for the last of its tokens; the others only make keys and values."""
        return float(self.stays(self.sequences) @ self.parts)

    @property
    def heads(self) -> float:
        """Exit layers whose logits a step computes: those before which some token has not left."""
        return float(self.stays(self.sequences)[:-1].sum())


def leaving_of(point: "Point") -> Leaving | None:
    """How the tokens of a point leave; None where none does, or nothing says how likely that is."""
    if point.exit_threshold is None or point.exit_every is None or point.exit_rate is None:
        return None
    return Leaving(point.model.num_layers, point.exit_every, point.exit_rate, point.batch_size)
