"""The law that no share of a peak is above 1: a row that breaks it is not valid, whoever made it and whenever.

Either its time, its tokens, its chips or its dtypes are not those of the result, or its peak is wrong. Rows get this
judgement when they are made and again whenever a store is read, so older rows have it too.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from bench.measure.timing import TimingConfig
from engines.core.row import Row

LIMITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mfu": "no chip computes above its peak",
        "mbu": "no memory delivers above its bandwidth",
        "published_mfu": "no chip computes above its peak",
    }
)
"""Share of a peak → why it cannot be above 1."""
MEASURED_LIMITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mfu_of_matmul": "a program of matmuls is no faster than the matmul measured beside it",
        "mbu_of_copy": "a program reads no faster than the copy measured beside it",
    }
)
"""Share of a rate that was measured → why it cannot be above :data:`MEASURED_MOST`."""
MEASURED_MOST: Final = (1 + TimingConfig().max_relative_ci) / (1 - TimingConfig().max_relative_ci)
"""Both times of a share of a measured rate may be off by half the interval that a valid row may have."""
MBU_WITHHELD: Final = "mbu_withheld"
MFU_WITHHELD: Final = "mfu_withheld"
"""Keys of ``details`` with the reason why a row has no MBU, or no MFU."""


def plausible(row: Row) -> Row:
    """The row, not valid and with the reason if a share of a peak is above 1; itself otherwise.

    Shares of a rate measured in the same process may be above 1 by as much as two medians may be off. The shares stay
    in the row, so that one can see what is wrong. Idempotent.
    """
    above = {
        value: f"{name}={value:.4g} is above 1: {why}, so its time, tokens, chips, dtypes or peak are wrong"
        for limits, most in ((MEASURED_LIMITS, MEASURED_MOST), (LIMITS, 1.0))
        for name, why in limits.items()
        if (value := getattr(row, name)) is not None and value > most
    }  # by value, as both shares are the same one where the peak itself was measured
    reasons = list(above.values())
    stated = row.invalid_reason or ""
    new = [reason for reason in reasons if reason not in stated]
    if not new and not (row.valid and reasons):
        return row
    return replace(row, valid=False, invalid_reason="; ".join([*([stated] if stated else []), *new]))


def without_table_mfu(row: Row, multiplied: float) -> Row:
    """The row without MFU where that is above 1 only by what it counts: 2N FLOPs a token, of all N parameters.

    A prompt's tokens look the embedding up, and only its last one is multiplied by the output matrix: where these are
    most of a model, as of one with few layers left, 2N is more than a chip computes.

    Args:
        multiplied: the FLOPs that the run must do, as a share of those that MFU counts.
    """
    shares = [share for share in (row.mfu, row.mfu_of_matmul) if share is not None]
    if max(shares, default=0.0) <= 1 or max(shares) * multiplied > 1:
        return row
    reason = (
        f"no MFU: it counts 2N FLOPs a token, of which this run does {multiplied:.1%}: the others are of the "
        "embedding, which is looked up, and of the output matrix, which reads no token of a prompt but the last"
    )
    return replace(row, mfu=None, mfu_of_matmul=None, details={**row.details, MFU_WITHHELD: reason})


def without_cached_mbu(row: Row, read_bytes: float, cache_bytes: float | None) -> Row:
    """The row without MBU where what a forward pass reads fits a cache: the memory then has to deliver none of it.

    Args:
        read_bytes: what one forward pass reads.
        cache_bytes: the last-level cache of all that reads it; None if it is not known.
    """
    if cache_bytes is None or read_bytes > cache_bytes or (row.mbu is None and row.mbu_of_copy is None):
        return row
    reason = (
        f"no MBU: the {read_bytes / 1e6:.3g} MB that a forward pass reads fit the cache of {cache_bytes / 1e6:.3g} MB"
    )
    return replace(row, mbu=None, mbu_of_copy=None, details={**row.details, MBU_WITHHELD: reason})
