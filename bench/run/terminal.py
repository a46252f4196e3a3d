"""The one way in which data is printed through rich: as it is, whatever it looks like."""

import sys
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engines.core.text import one_line

PIPE_WIDTH: Final = 200
"""In a pipe there is no terminal whose width a table must fit."""


class DataConsole(Console):
    """A console for which ``[b]`` is no markup and ``:x:`` no emoji, and that a name cannot clear or colour."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """The text as it is, on one line."""
        return super().render_str(one_line(text), **{**settings, "markup": False, "emoji": False, "highlight": False})


def console(pipe_width: int = PIPE_WIDTH) -> Console:
    """A console on stdout."""
    return DataConsole(width=None if sys.stdout.isatty() else pipe_width, highlight=False, markup=False, emoji=False)


def table(**settings: Any) -> Table:
    """An empty table in the style of all our tables."""
    return Table(box=None, header_style="bold", pad_edge=False, title_justify="left", **settings)
