"""Time of collectives between slices: bytes over the data-centre network, beside those over the slice's own links.

With S bytes of one chip's larger side and n slices, a chip sends S·(n−1)/n (all-gather, reduce-scatter, all-to-all),
twice that (all-reduce), or S (permute). No datasheet states a latency or how much of the bandwidth payload gets: the
time is the least that it can be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from engines.compiled.cost.base import CollectiveTime, ComputeTime, CostModel
from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.schedule import Step
from engines.core.chip import Chip
from engines.core.errors import Unsupported

FILE: Final = Path(__file__).with_name("network.yaml")
LANE: Final = "between slices"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralSlicesCost:
    """A device of several slices: ``one`` is its cost model within a slice, ``bytes_per_s`` its part of the network."""

    one: CostModel
    bytes_per_s: float
    source: str

    @property
    def hbm_bytes_per_s(self) -> float:
        """Bandwidth of the device's main memory."""
        return self.one.hbm_bytes_per_s

    def compute_time(self, step: Step) -> ComputeTime:
        """As in one slice."""
        return self.one.compute_time(step)

    def collective_time(self, collective: Collective) -> CollectiveTime:
        """Over the network where it joins slices, else over the slice's links.

        Raises:
            ShardbenchError: no links connect the devices of its groups.
        """
        count = collective.slices
        if count == 1:
            return self.one.collective_time(collective)
        share = 1.0 if collective.opcode == "collective-permute" else (count - 1) / count
        rounds = 2 if collective.opcode == "all-reduce" else 1
        seconds = rounds * share * collective.whole_bytes / self.bytes_per_s
        return CollectiveTime(seconds=seconds, latency_s=0.0, lanes=(LANE,))

    def best_case(self) -> CostModel | None:
        """None: what the network leaves out can only take longer."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """The constants of one slice, and the network's bandwidth with its source."""
        return {**self.one.describe(), "network_bytes_per_s": self.bytes_per_s, "network_source": self.source}


def several_slices_cost(one: CostModel, chip: Chip) -> SeveralSlicesCost:
    """The cost model of one device of several slices.

    Raises:
        Unsupported: no datasheet states the chip's bandwidth between slices.
    """
    xla = chip.require("xla", chip.xla)
    known = _bandwidths()
    if xla.name not in known:
        raise Unsupported(
            f"hw={chip.name}: no datasheet states its bandwidth between slices, as for {', '.join(known)}; "
            "leave num_slices out, or use one of these"
        )
    figures = known[xla.name]
    rate = float(figures["bytes_per_s_a_chip"]) / xla.cores
    return SeveralSlicesCost(one=one, bytes_per_s=rate, source=str(figures["source"]))


@cache
def _bandwidths() -> Mapping[str, Mapping[str, Any]]:
    import yaml

    content: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content
