"""The best plans on several chips, compared by what they have in common: time, rate, or dollars."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.planner.search import Candidate, SearchResult
from bench.rows.prices import Prices
from engines.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class OfChip:
    """The search on one chip, and of its best plan what all chips are compared by: seconds, or dollars a token.

    ``value`` is None where no plan fits.
    """

    found: SearchResult
    value: float | None
    cost_usd_per_mtok: float | None

    @property
    def hw(self) -> str:
        """The chip's name."""
        return self.found.workload.chip.name

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        chosen = None if self.found.chosen is None else self.found.chosen.to_dict()
        return {"hw": self.hw, "chosen": chosen, "cost_usd_per_mtok": self.cost_usd_per_mtok}


def check_comparable(objective: str, chips: Sequence[str], prices: Prices) -> None:
    """Check that the costs of plans on several chips can be compared.

    Raises:
        InvalidRequest: they are chip-seconds of different chips, since a chip has no price.
    """
    if objective != "cost" or len(chips) == 1:
        return
    without = [hw for hw in chips if prices.usd_per_chip_hour_of(hw) is None]
    if without:
        raise InvalidRequest(
            "price",
            prices.name,
            f"has no price of {without[0]}, and chip-seconds of different chips are no common cost",
            "give price=NAME with all of them, or ask for one hw",
        )


def by_chip(results: Sequence[SearchResult], prices: Prices) -> list[OfChip]:
    """The searches, the best first; those without a plan last."""
    found = [_of_chip(each, prices) for each in results]
    return sorted(found, key=lambda each: float("inf") if each.value is None else each.value)


def dollars(plan: Candidate, prices: Prices) -> float | None:
    """US dollars for a million tokens of a plan; None where its chip has no price."""
    return prices.usd_per_mtok(plan.point.chip.name, plan.cost_chip_s_per_token)


def _of_chip(found: SearchResult, prices: Prices) -> OfChip:
    if found.chosen is None:
        return OfChip(found=found, value=None, cost_usd_per_mtok=None)
    usd = dollars(found.chosen, prices)
    value = usd if found.workload.objective == "cost" and usd is not None else found.chosen.value
    return OfChip(found=found, value=value, cost_usd_per_mtok=usd)
