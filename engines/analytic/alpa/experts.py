"""A layer's experts as one operator: what each mesh axis does to them, and what that costs a chip.

An axis ``a`` splits the experts, and tokens are sent to theirs by all-to-all and back; ``e`` splits them as well, and
every chip along it has all tokens, so that its result is a term of a sum; ``k`` and ``n`` cut E and the columns of each
expert; ``t`` and ``g`` split tokens, with the weights copied along the axis, or split in memory and gathered.

The formulas are those of :mod:`engines.analytic.torus_experts` and :mod:`engines.analytic.gpu_experts`. N experts, k of
them for a token; rows and weights are those of the busiest chip (:mod:`engines.analytic.expert_load`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from engines.analytic.alpa.costs import Cost, Costs
from engines.analytic.alpa.network import Network
from engines.analytic.alpa.roles import assignments, having, renamed, sent
from engines.analytic.expert_load import busiest_hit, busiest_rows
from engines.core.shardings import EXPERTS

READS: Final = (("a", "t"), ("t", "t"), ("g", "t"), ("k", "c"))
"""What experts read, as a value [tokens, E]."""
MAKES: Final = (*READS, ("e", "u"), ("n", "u"))
"""What they make."""


@dataclass(frozen=True)
class Routed:
    """The experts of the layers of ``costs``, over the links of ``network``."""

    costs: Costs
    network: Network

    def _size(self, roles: str, letters: str) -> int:
        return self.network.size(having(roles, letters))

    @cached_property
    def shardings(self) -> list[str]:
        """Those that leave every chip whole experts, or equal parts of each; an axis of several chips splits something.

        Nothing is the same on all chips of an axis: that takes as long as without the axis.
        """
        value, network = self.costs.value, self.network
        return [
            each
            for each in assignments(EXPERTS, network.mesh)
            if value("num_experts") % self._size(each, "ae") == 0
            and value("expert_hidden") % self._size(each, "kng") == 0
            and value("d_model") % self._size(each, "k") == 0
            and self.costs.batch % self._size(each, "atg") == 0
        ]

    def _rows(self, roles: str) -> tuple[float, float, float]:
        """(tokens of a group of chips that share experts, rows of the busiest of them, its experts that are hit)."""
        tokens, shards = self.costs.tokens / self._size(roles, "tg"), np.full(1, float(self._size(roles, "ae")))
        group, number, grid = np.full(1, tokens), self.costs.number, self.costs.grid
        return tokens, number(busiest_rows(grid, group, shards)), number(busiest_hit(grid, group, shards))

    def cost(self, roles: str) -> Cost:
        """The experts on the busiest chip: compute, memory, and what is sent while they run.

        2 operations for each weight of an expert and each row, rows in whole tiles of ``grouped_rows``, and the
        router's; the weights that are hit, all where they are gathered; rows in, between and out.
        """
        costs, value = self.costs, self.costs.value
        tokens, rows, hit = self._rows(roles)
        gathers, tile, count = bool(having(roles, "g")), value("grouped_rows"), value("num_experts")
        width = value("d_model") / self._size(roles, "k")
        here = count / self._size(roles, "ae")
        part = value("expert_params") / self._size(roles, "kn")
        multiplied = max(rows + hit * tile / 2, hit * tile) if tile > 0 else rows
        columns = (value("expert_inputs") + value("expert_hidden")) / self._size(roles, "n")
        read = (2 * here if gathers else hit) * part * value("weight_bytes") + width * count * costs.act
        loaded_s = read / value("weight_stream") / costs.stream
        passed = rows * (4 * width + costs.columns_passed * columns) * costs.act * value("vector_passes")
        return costs.timed(
            2 * (multiplied * part + tokens * width * count) / costs.rate(width),
            loaded_s + passed / costs.stream,
            loaded_s,
            foreseen=False,
            waiting_s=costs.layers * self._sending_s(roles, tokens, rows, width, here * part),
            held_bytes=costs.layers
            * (here * part / self._size(roles, "g") + count * value("d_model"))
            * value("weight_bytes"),
            work_bytes=(tokens * width + rows * (2 * width + columns)) * costs.act
            + here * part / 2 * value("weight_bytes") * gathers,
        )

    def _sending_s(self, roles: str, tokens: float, rows: float, width: float, weights: float) -> float:
        """In one layer: rows to their experts and back, sums over the axes of E, and ``weights`` gathered in halves.

        All-to-alls wait for the chip that gets the most.
        """
        value, seconds = self.costs.value, self.network.seconds
        own = tokens / self._size(roles, "a") * value("experts_per_token") / self._size(roles, "e")
        columns = rows / self._size(roles, "n") * self.costs.act
        found = 0.0
        if axes := having(roles, "a"):
            found += 2 * seconds("all-to-all", axes, max(own, rows) * width * self.costs.act)
        if axes := having(roles, "k"):
            found += seconds("reduce-scatter", axes, columns * value("expert_inputs"))
            found += seconds("all-gather", axes, columns * value("expert_hidden"))
        if axes := having(roles, "g"):
            found += 2 * seconds("all-gather", axes, weights * value("weight_bytes") / 2)
        return found

    def arriving_s(self, before: str, roles: str) -> float:
        """Bringing the stream to the experts, in all layers."""
        return self.costs.layers * self._moved_s(before, renamed(roles, READS))

    def leaving_s(self, roles: str, wanted: str) -> float:
        """Summing what they made, and bringing it to the stream, in all layers.

        The program of the experts sums itself, in the format of activations.
        """
        return self.costs.layers * self._moved_s(renamed(roles, MAKES), wanted)

    def _moved_s(self, before: str, after: str) -> float:
        total = 0.0
        for each in sent(before, after):
            shards = self.network.size(each.rows) * self.network.size(each.columns)
            size = self.costs.tokens * self.costs.d_model * self.costs.act / shards
            total += self.network.seconds(each.kind, each.axes, size)
        return total
