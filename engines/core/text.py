"""Text that others wrote, on a line of a message or a terminal."""

from typing import Final

MOST_SHOWN: Final = 200


def one_line(text: str) -> str:
    """The text without what moves a cursor or starts a line: such characters are written as in a Python string."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def shortened(text: str) -> str:
    """The beginning of a text that is too long to be read in a sentence."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}… ({len(text):,} characters)"
