"""The message for an error that nobody foresaw, which is a fault of this program and not of what was asked."""

import traceback
from pathlib import Path
from typing import Final

from engines.core.text import one_line, shortened

EXIT_CODE: Final = 4
PACKAGES: Final = ("bench", "engines")


def message(error: BaseException) -> str:
    """One line: the error's class, its message, and the last place of our own code that it passed."""
    text = shortened(one_line(str(error)))
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return (
        f"an error that nobody foresaw: {what}{_place(error)}; please report it with the command; "
        "SHARDBENCH_TRACEBACK=1 shows more"
    )


def _place(error: BaseException) -> str:
    root = Path(__file__).parents[2]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(root) and path.relative_to(root).parts[0] in PACKAGES:
            return f" at {path.relative_to(root).as_posix()}:{frame.lineno} in {frame.name}"
    return ""
