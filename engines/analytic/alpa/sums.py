"""How a compiler that partitions sums what a matmul made in terms: which collectives XLA emits for it, and their time.

The rules are those of programs of one matmul that XLA compiled for TPUs (docs/explanation/operators.md lists them):

- terms are sent in the format that the matmul accumulates in, float32;
- a reduce-scatter takes at most two axes, all of which then split one dimension, into whole tiles of the vector unit;
  any other sum is an all-reduce of which a chip takes its part;
- where the axes then split tokens, and the matmul takes longer than sending, the compiler runs it as a ring: it makes
  the tokens of two chips at a time, one sent either way, and reads the matrix again in every turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from engines.analytic.alpa.costs import Cost, Costs, Part, on_chip
from engines.analytic.alpa.network import Network
from engines.analytic.alpa.roles import having

TERM_BYTES: Final = 4.0
"""Of a term of a sum."""
LANES, SUBLANES = 128, 8
"""Of a tile of the vector unit, along columns and tokens."""
MOST_SCATTERED: Final = 2
"""Axes of a reduce-scatter."""
SENDERS: Final = 2
"""Directions in which a ring sends at once, and chips whose tokens a turn of it makes."""


class Summed(NamedTuple):
    """``kind`` is reduce-scatter, all-reduce or ring, or empty where there is nothing to sum over ``axes``."""

    kind: str
    axes: str


@dataclass(frozen=True)
class Product:
    """A matmul [tokens, rows]·[rows, columns] of all chips; ``into`` says that the rows are d_model's."""

    costs: Costs
    network: Network
    rows: Sequence[Part]
    columns: Sequence[Part]
    into: bool

    def local(self, roles: str) -> tuple[float, float, float]:
        """Tokens, rows and columns on a chip."""
        size = self.network.size
        return (
            self.costs.tokens / size(having(roles, "t")),
            on_chip(self.rows, size(having(roles, "k"))),
            on_chip(self.columns, size(having(roles, "n"))),
        )

    def cost(self, roles: str, reads: float = 1.0) -> Cost:
        """The matmul on a chip, where the matrix is read so often."""
        tokens, rows, columns = self.local(roles)
        width = rows if self.into else columns
        return self.costs.matmul(tokens, rows, columns, width, whole=rows * columns * reads)

    def busy_s(self, roles: str, reads: float = 1.0) -> float:
        """Seconds of computing in all layers."""
        found = self.cost(roles, reads)
        return found.compute_s + found.memory_s - found.overlapped_s

    def summed(self, roles: str, target: str) -> Summed:
        """How its terms become a value of roles ``target``."""
        axes = having(roles, "k")
        to = {target["xyz".index(axis)] for axis in axes}
        if to == {"t"} and self._outlasts_sending(roles):
            return Summed("ring", axes)
        if len(to) == 1 and len(axes) <= MOST_SCATTERED and self._whole_tiles(roles, *to):
            return Summed("reduce-scatter", axes)
        return Summed("all-reduce" if axes else "", axes)

    def _whole_tiles(self, roles: str, letter: str) -> bool:
        size = self.network.size
        if letter == "t":
            return self.costs.tokens / size(having(roles, "tk")) % SUBLANES == 0
        return letter == "c" and sum(columns for columns, _ in self.columns) / size(having(roles, "nk")) % LANES == 0

    def _outlasts_sending(self, roles: str) -> bool:
        """Whether 2·tokens·rows·columns operations at peak take as long as the terms over two links each way."""
        link = self.costs.value("link_bytes_per_s")
        return 2 * self.local(roles)[1] / self.costs.value("peak") >= TERM_BYTES / (2 * SENDERS * link)

    def seconds(self, roles: str, target: str) -> tuple[float, float]:
        """What summing adds in all layers: (waiting for others, computing)."""
        kind, axes = self.summed(roles, target)
        layers, count = self.costs.layers, self.network.size(axes)
        tokens, _, columns = self.local(roles)
        terms = tokens * columns * TERM_BYTES
        if kind != "ring":
            return (layers * self.network.seconds(kind, axes, terms) if kind else 0.0), 0.0
        link = self.costs.value("link_bytes_per_s") * self.costs.value("link_efficiency")
        once = layers * (self.costs.value("collective_s") + self.costs.value("hop_s") + terms / count / link)
        busy = self.busy_s(roles, reads=max(count / SENDERS, 1.0))
        return max((count + 1) * once - busy, once), busy - self.busy_s(roles)
