"""The time of a static batch from its tokens per second, by a rule that the case records."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bench.cli.args import Key
from engines.core.errors import InvalidRequest
from engines.core.point import Point

COUNTED: Final = ("output", "all")
"""Which tokens a throughput counts: those generated, or those of the prompts too."""
RATES: Final[Mapping[str, str | None]] = {
    "tokens_per_s": None,
    "output_tokens_per_s": "output",
    "total_tokens_per_s": "all",
}
"""Column of a throughput → which tokens it counts; None where the column ``tokens``, the key or the phase says it."""
TOKENS: Final = Key("tokens", None, "which tokens the throughputs of CSV files count", COUNTED)
MOST_APART: Final = 0.05
"""A time and a throughput of one line that differ by more contradict each other."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A throughput of a line: its column, tokens per second, and which tokens it counts where that is known."""

    column: str
    tokens_per_s: float
    counted: str | None

    def latency_s(self, point: Point) -> tuple[float, str]:
        """The seconds of the whole batch, and the rule.

        Raises:
            InvalidRequest: nothing says which tokens a generate point's throughput counts.
        """
        if self.counted is None:
            raise InvalidRequest(
                self.column,
                self.tokens_per_s,
                "counts output tokens or all tokens, and a generate point has both",
                "add tokens=output or tokens=all, or a column tokens with output or all",
            )
        length = "input_len" if point.phase == "prefill" else "output_len"
        if point.phase == "generate" and self.counted == "all":
            length = "(input_len + output_len)"
        tokens = point.batch_size * sum(getattr(point, name) for name in ("input_len", "output_len") if name in length)
        return tokens / self.tokens_per_s, f"latency_s = batch_size · {length} / {self.column}"


def rate_of(cells: Mapping[str, str], phase: str, counted: str | None) -> Rate | None:
    """The throughput that a line states; None if it states none. ``counted`` is what the user says that it counts.

    Raises:
        InvalidRequest: it is no number above 0, there are two, or what it counts is unknown or not of the phase.
    """
    stated = [column for column in RATES if cells.get(column)]
    if not stated:
        return None
    if len(stated) > 1:
        raise InvalidRequest(stated[1], cells[stated[1]], f"stands beside {stated[0]}", "give one of them")
    [column] = stated
    own = cells.get("tokens") or RATES[column]
    if own is not None and own not in COUNTED:
        raise InvalidRequest("tokens", own, "is not known", f"use {' or '.join(COUNTED)}")
    if RATES[column] not in (None, own):
        raise InvalidRequest("tokens", own, f"contradicts the column {column}", "make them agree")
    if phase == "prefill" and own == "output":
        raise InvalidRequest("tokens", own, "are none in a prefill", "use tokens=all, its input tokens")
    only = {"prefill": "all", "decode": "output"}.get(phase)
    return Rate(column, _positive(column, cells[column]), own or only or counted)


def check_agrees(rate: Rate, point: Point, latency_s: float) -> None:
    """Check that a line's time and its throughput are of one result, whichever tokens it counts.

    Raises:
        InvalidRequest: they differ by more than :data:`MOST_APART`.
    """
    possible = COUNTED if rate.counted is None else (rate.counted,)
    times = [Rate(rate.column, rate.tokens_per_s, each).latency_s(point)[0] for each in possible]
    if all(abs(seconds / latency_s - 1) > MOST_APART for seconds in times):
        told = " or ".join(f"{seconds:.4g}" for seconds in dict.fromkeys(times))
        raise InvalidRequest(
            "latency_s",
            f"{latency_s:g}",
            f"contradicts {rate.column}={rate.tokens_per_s:g}, which is {told} s",
            "remove the wrong one",
        )


def _positive(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise InvalidRequest(key, text, "must be a number > 0", "use tokens per second")
    return number
