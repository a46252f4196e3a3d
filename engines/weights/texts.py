"""The texts that a reference reads to verify an engine: prompts of any lengths and what was generated after them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Texts:
    """``tokens`` [batch, time]: each prompt's first ``lengths`` [batch] tokens and what follows, then anything.

    A causal reference reads all of it at once; positions after a text's end change nothing before them.
    """

    def __init__(self, prompts: NDArray[np.int32], lengths: NDArray[np.int32]) -> None:
        self.tokens, self.lengths = prompts, lengths
        self.positions = np.zeros((0, len(lengths)), np.int64)

    def compare_last(self) -> None:
        """Logits after each prompt's last token are compared."""
        self._compare(self.lengths[None] - 1)

    def go_on(self, generated: NDArray[np.int32], last: int) -> None:
        """``generated`` [batch, steps] follow the prompts; logits after the ``last`` of each are compared."""
        steps = generated.shape[1]
        grown = np.pad(self.tokens[:, : self.lengths.max(initial=0)], ((0, 0), (0, steps)))
        np.put_along_axis(grown, self.lengths[:, None] + np.arange(steps), generated, axis=1)
        self.tokens = grown
        self._compare(self.lengths[None] + np.arange(steps - last, steps)[:, None])

    @property
    def asked(self) -> list[int]:
        """Every position that is compared in some text, ascending."""
        return sorted(set(self.positions.ravel().tolist()))

    def of_each(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        """found: [asked, batch, vocab] → [compared, batch, vocab], each text's own positions."""
        return found[np.searchsorted(self.asked, self.positions), np.arange(len(self.lengths))]

    def _compare(self, positions: NDArray[Any]) -> None:
        self.positions = np.concatenate([self.positions, positions])
