"""Names the rows that could not be used, so that none is left out silently."""

from collections.abc import Iterator, Sequence
from typing import Final

from bench.rows.counted import counted
from bench.validate.case import Unused
from engines.core.text import one_line

MOST_SHOWN: Final = 20


def unused_lines(unused: Sequence[Unused]) -> Iterator[str]:
    """Their number and the first of them with the reasons, as text for people; nothing if there are none.

    Lines of one file with one reason are one line of text: ``mine.csv:2-4,7: model=llama-9: is not known``.
    """
    if not unused:
        return
    groups: dict[tuple[str, str], list[int | None]] = {}
    for each in unused:
        groups.setdefault((each.file, each.reason), []).append(each.line)
    yield f"not used: {counted(len(unused), 'row')}"
    for (file, reason), numbers in list(groups.items())[:MOST_SHOWN]:
        lines = [number for number in numbers if number is not None]
        yield one_line(f"  {file}{':' if lines else ''}{_ranges(lines)}: {reason}")
    if len(groups) > MOST_SHOWN:
        yield f"  and {len(groups) - MOST_SHOWN} more reasons; print=json has all"


def _ranges(numbers: Sequence[int]) -> str:
    """``2-4,7`` for 2, 3, 4 and 7."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
