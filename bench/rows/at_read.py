"""What a row has only when it is read: dollars by prices of today, and energy by the chip's power.

Neither changes what was measured, and both may change without it: so no store holds them, and none goes stale. A row
whose energy was measured keeps that.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Final

from bench.rows.prices import Prices
from bench.sweep.catalog import load_customised
from engines.core.chip import Chip
from engines.core.errors import ShardbenchError
from engines.core.row import Row

BY_TDP: Final = "tdp"


def at_read(rows: Iterable[Row], prices: Prices) -> list[Row]:
    """The rows with dollars and energy."""
    return [_with_energy(with_dollars(row, prices)) for row in rows]


def as_stored(row: Row) -> Row:
    """The row without what it has only when it is read; itself where it has nothing of that."""
    if row.price is None and row.cost_usd_per_mtok is None and row.energy_source != BY_TDP:
        return row
    row = replace(row, energy_j=None, energy_source=None) if row.energy_source == BY_TDP else row
    return replace(row, cost_usd_per_mtok=None, price=None)


def with_dollars(row: Row, prices: Prices) -> Row:
    """The row with dollars; itself where its chip has no price."""
    dollars = prices.usd_per_mtok(row.hw, row.cost_chip_s_per_token)
    if dollars is None and row.price is None:
        return row
    return replace(row, cost_usd_per_mtok=dollars, price=None if dollars is None else prices.label)


def _with_energy(row: Row) -> Row:
    if row.energy_source not in (None, BY_TDP) or row.latency_s is None or row.status != "ok":
        return row
    watts = _watts(row.hw)
    if watts is None:
        return row
    return replace(row, energy_j=row.num_chips * watts * row.latency_s, energy_source=BY_TDP)


@cache
def _watts(hw: str) -> float | None:
    """The power that one chip is taken to draw: its thermal design power, or its power limit below that."""
    try:
        chip = Chip.from_config(load_customised("hw", hw))
    except ShardbenchError:
        return None  # a chip of somebody else's config folder
    if chip.tdp_w is None:
        return None
    return min(chip.tdp_w, chip.power_limit_w or chip.tdp_w)
