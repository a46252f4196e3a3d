"""Which mesh axes split experts, and what the other axes split inside an expert."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engines.core.shardings import EXPERTS
from engines.transformer.partition.axes import Axes, MeshAxes


@dataclass(frozen=True, slots=True)
class ExpertAxes:
    """``axes`` of a plan of which ``experts`` split the experts, x slowest; only axes of more than one chip.

    Inside an expert the axes that are left cut a matrix as the layout says, [E.stored_embed, F.stored_ffn], and those
    of them over which the layout gathers weights gather it. With ``all_to_all`` each chip of ``experts`` routes its own
    share of the tokens and sends each to the chips of its experts; without, all of them have all tokens, and the sum
    over experts is part of the sum over F.
    """

    axes: MeshAxes
    experts: Axes
    all_to_all: bool

    def _left(self, names: Axes) -> Axes:
        return tuple(axis for axis in names if axis not in self.experts)

    @property
    def sent(self) -> Axes:
        """Axes of the experts along which tokens are sent to theirs."""
        return self.experts if self.all_to_all else ()

    @property
    def held(self) -> Axes:
        """Axes of the experts whose chips all have the same tokens; they are the slowest of ``experts``."""
        return () if self.all_to_all else self.experts

    @property
    def shards(self) -> int:
        """Groups of experts."""
        return self.axes.size(self.experts)

    @property
    def chunks(self) -> int:
        """Column chunks of an expert: one for each chip that shares it."""
        return self.axes.chips // self.shards

    @property
    def stored_embed(self) -> Axes:
        """Axes that split E of an expert in memory."""
        return self._left(self.axes.stored_embed)

    @property
    def stored_ffn(self) -> Axes:
        """Axes that split F of an expert in memory."""
        return self._left(self.axes.stored_ffn)

    @property
    def embed(self) -> Axes:
        """Axes that split E of an expert in use."""
        return self._left(self.axes.embed)

    @property
    def ffn(self) -> Axes:
        """Axes that split F of an expert in use."""
        return self._left(self.axes.ffn)

    @property
    def gathered(self) -> tuple[Axes, Axes]:
        """Axes over which an expert's matrices are gathered: (those along E, those along columns)."""
        rows, columns = self.axes.gathered
        return self._left(rows), self._left(columns)

    @property
    def batch(self) -> Axes:
        """Axes of the experts over which the layout splits tokens already."""
        return tuple(axis for axis in self.axes.batch if axis in self.experts)

    @property
    def whole(self) -> Axes:
        """Axes of the residual stream over which an expert needs E whole; the slowest are those of ``embed``."""
        return tuple(axis for axis in self.axes.residual if axis not in self.embed)

    @property
    def spread(self) -> Axes:
        """Axes over which tokens are split further before they are sent to experts."""
        return tuple(axis for axis in self.experts if axis not in self.axes.batch)

    @property
    def summed(self) -> Axes:
        """Axes over which the result of all tokens on a chip is a sum of terms."""
        return self.ffn if self.all_to_all else tuple(axis for axis in self.axes.all if axis in self.ffn + self.spread)

    def entering(self, stream: Sequence[Axes]) -> tuple[Axes, Axes]:
        """Axes that split tokens and E of what comes to the experts, from a ``stream`` [tokens, E]."""
        del stream
        return self.axes.batch, self.axes.residual

    def scattered(self, stream: Sequence[Axes]) -> tuple[Axes, Axes]:
        """Axes over which a sum of what the experts made is still to be scattered: along tokens, along E."""
        del stream
        return (), ()

    @property
    def unreduced(self) -> Axes:
        """Axes over which what the experts made is left as terms of a sum."""
        return ()

    def tokens(self, local: int) -> int:
        """Tokens that a chip has of its experts' group, of the ``local`` ones of the residual stream."""
        return local * self.axes.size(self.batch)

    def rows(self, local: int, num_experts: int, per_token: int) -> int:
        """Rows that a chip's experts get at most: a token sends one to each of k experts, or of all that are here."""
        return self.tokens(local) * min(per_token, num_experts // self.shards)

    def even_rows(self, local: int, per_token: int) -> int:
        """Rows that a chip's experts get when routing is balanced, rounded up."""
        return math.ceil(self.tokens(local) * per_token / self.shards)


@dataclass(frozen=True, slots=True)
class PlannedExpertAxes(ExpertAxes):
    """Those of a plan whose operators have shardings of their own: ``told`` has axes for each letter of ``EXPERTS``.

    Tokens come split as they are told, and what the experts make of them is left as terms of a sum; the compiler brings
    both from and to the stream.
    """

    told: tuple[str, ...] = ("",) * len(EXPERTS)

    def _told(self, letters: str) -> Axes:
        return tuple(axis for letter in letters for axis in self.told[EXPERTS.index(letter)])

    @property
    def sent(self) -> Axes:
        """Axes of the experts along which tokens are sent to theirs."""
        return self._told("a")

    @property
    def held(self) -> Axes:
        """Axes of the experts whose chips all have the same tokens."""
        return self._told("e")

    @property
    def chunks(self) -> int:
        """Column chunks of an expert: one for each part of it."""
        return self.axes.size(self._told("kng"))

    @property
    def stored_embed(self) -> Axes:
        """Axes that split E of an expert in memory, as in use."""
        return self._told("k")

    @property
    def stored_ffn(self) -> Axes:
        """Axes that split F of an expert in memory."""
        return self._told("ng")

    @property
    def embed(self) -> Axes:
        """Axes that split E of an expert in use."""
        return self._told("k")

    @property
    def ffn(self) -> Axes:
        """Axes that split F of an expert in use."""
        return self._told("n")

    @property
    def gathered(self) -> tuple[Axes, Axes]:
        """Axes over which an expert's matrices are gathered: none along E, and some of its columns."""
        return (), self._told("g")

    @property
    def batch(self) -> Axes:
        """None: tokens come as the experts have them."""
        return ()

    @property
    def whole(self) -> Axes:
        """None: E comes as the experts have it."""
        return ()

    @property
    def spread(self) -> Axes:
        """None."""
        return ()

    @property
    def unreduced(self) -> Axes:
        """Axes of experts whose chips all have the same tokens, and of an expert's columns."""
        return self._told("en")

    def entering(self, stream: Sequence[Axes]) -> tuple[Axes, Axes]:
        """Axes in the order that they have in the stream, so that those that stay need no permute."""
        order = [*stream[0], *stream[1], *"xyz"]
        return tuple(sorted(self._told("atg"), key=order.index)), self._told("k")

    def scattered(self, stream: Sequence[Axes]) -> tuple[Axes, Axes]:
        """Axes of the terms that split the stream; of tokens none where whole sequences don't split over them too."""
        tokens, columns = (tuple(axis for axis in each if axis in self.unreduced) for each in stream[:2])
        whole = self.axes.batch_size % self.axes.size(self._told("atg") + tokens) == 0
        return tokens if whole else (), columns


def planned_experts(axes: MeshAxes, told: tuple[str, ...]) -> ExpertAxes:
    """The axes of experts that are ``told``, [sent, held, E, columns, tokens, gathered]."""
    sent, held = told[0], told[1]
    return PlannedExpertAxes(axes, tuple(held + sent), bool(sent), told)
