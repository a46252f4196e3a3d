"""Text that others wrote, and numbers, as a reader wants them in a sentence or a table."""

import math
from typing import Final

MOST_SHOWN: Final = 200
PLAIN: Final = (1e-4, 1e9)
"""Numbers from the first and below the second are written without an exponent."""


def one_line(text: str) -> str:
    """The text without what moves a cursor or starts a line: such characters are written as in a Python string."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def sentence(text: str) -> str:
    """What another program says, as part of a sentence: in one line, and no longer than can be read."""
    return shortened(one_line(" ".join(text.split())))


def shortened(text: str) -> str:
    """The beginning of a text that is too long to be read in a sentence."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}… ({len(text):,} characters)"


def significant(value: float, digits: int = 3) -> str:
    """The number with at least ``digits`` significant digits and no needless zeros: 0.00123, 1.5, 1,550, 12,345."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")
    if abs(rounded) < PLAIN[0] or abs(value) >= PLAIN[1]:
        return f"{value:.{digits}g}"
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    if decimals <= 0:
        return f"{value:,.0f}"
    return f"{value:,.{decimals}f}".rstrip("0").rstrip(".")
