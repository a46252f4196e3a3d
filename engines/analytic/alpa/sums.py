"""How a compiler that partitions sums what a matmul made in terms: which collectives XLA emits for it, and their time.

The rules are those of programs of one matmul that XLA compiled (docs/explanation/operators.md lists them), for TPUs:

- terms are sent in the format that the matmul accumulates in, float32;
- a reduce-scatter takes at most two axes, which then split one dimension into whole tiles of the vector unit, whichever
  way round; the axes of the sum that split nothing are an all-reduce behind it, where no others split that dimension;
- any other sum is an all-reduce of which a chip takes its part;
- what a sum scatters along a dimension is that dimension's fastest: where a slower axis leaves it, a permute follows;
- where the axes then split tokens, and the matmul takes longer than sending, the compiler runs it as a ring: it makes
  the tokens of two chips at a time, one sent either way, and reads the matrix again in every turn.

For GPUs it makes a reduce-scatter along any axes that split one dimension, whatever its size, and no rings.
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


class Sum(NamedTuple):
    """``kind`` is reduce-scatter, all-reduce or ring, over ``axes``."""

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

    def sums(self, roles: str, target: str) -> tuple[Sum, ...]:
        """How its terms become a value of roles ``target``, one after the other."""
        axes = having(roles, "k")
        split = {letter: "".join(axis for axis in axes if target["xyz".index(axis)] == letter) for letter in "tc"}
        if not axes:
            return ()
        letter = "t" if split["t"] else "c"
        over, alone = split[letter], not having(roles, {"t": "t", "c": "n"}[letter])
        if over == axes and letter == "t" and self._outlasts_sending(roles):
            return (Sum("ring", axes),)
        mixed = split["t"] and split["c"]
        if over and not mixed and (over == axes or alone) and self._scatters(roles, letter, over):
            rest = "".join(axis for axis in axes if axis not in over)
            return (Sum("reduce-scatter", over), *((Sum("all-reduce", rest),) if rest else ()))
        return (Sum("all-reduce", axes),)

    @staticmethod
    def left(roles: str, target: str) -> str:
        """The roles of the value behind the sums."""
        named = {"n": "c", "t": "t", "r": "r"}
        return "".join(named.get(role, to) for role, to in zip(roles, target, strict=True))

    def turned_s(self, roles: str, target: str) -> float:
        """A permute in one layer, where axes that leave a dimension stand before those that sums scattered into it."""
        pairs = list(zip(roles, target, strict=True))
        if not any(
            ("k", to) in pairs and any(role == own and at != to for role, at in pairs) for own, to in ("tt", "nc")
        ):
            return 0.0
        size, every = self.network.size, "xyz"
        columns = on_chip(self.columns, size(having(target, "c")))
        here = self.costs.tokens / size(having(target, "t")) * columns * self.costs.act
        return self.network.seconds("collective-permute", every, here)

    def _scatters(self, roles: str, letter: str, over: str) -> bool:
        """Whether ``over`` splits what the matmul makes, [tokens, columns], into whole tiles, either way round.

        A GPU has no such tiles.
        """
        if self.costs.on_gpus:
            return True
        size = self.network.size
        tokens = self.costs.tokens / size(having(roles, "t") + (over if letter == "t" else ""))
        columns = sum(each for each, _ in self.columns) / size(having(roles, "n") + (over if letter == "c" else ""))
        tiled = any(a % LANES == 0 and b % SUBLANES == 0 for a, b in ((tokens, columns), (columns, tokens)))
        return tiled and len(over) <= MOST_SCATTERED

    def _outlasts_sending(self, roles: str) -> bool:
        """Whether 2·tokens·rows·columns operations at peak take as long as the terms over two links each way.

        On a torus: a switch has no rings of neighbours.
        """
        if self.costs.on_gpus:
            return False
        link = self.costs.value("link_bytes_per_s")
        return 2 * self.local(roles)[1] / self.costs.value("peak") >= TERM_BYTES / (2 * SENDERS * link)

    def seconds(self, roles: str, target: str) -> tuple[float, float]:
        """What summing adds in all layers: (waiting for others, computing)."""
        waiting, busy, layers = 0.0, 0.0, self.costs.layers
        tokens, _, columns = self.local(roles)
        terms = tokens * columns * TERM_BYTES
        for kind, axes in self.sums(roles, target):
            if kind == "ring":
                waiting, busy = self._ring_s(roles, self.network.size(axes), terms)
            else:
                waiting += layers * self.network.seconds(kind, axes, terms)
                terms /= self.network.size(axes)
        return waiting, busy

    def _ring_s(self, roles: str, count: int, terms: float) -> tuple[float, float]:
        """Of a ring of so many chips: what is sent beyond its matmuls, and what these take more."""
        value = self.costs.value
        link = value("link_bytes_per_s") * value("link_efficiency")
        once = self.costs.layers * (value("collective_s") + value("hop_s") + terms / count / link)
        busy = self.busy_s(roles, reads=max(count / SENDERS, 1.0))
        return max((count + 1) * once - busy, once), busy - self.busy_s(roles)
