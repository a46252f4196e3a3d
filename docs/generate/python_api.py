"""The reference of Python: every public name with its arguments."""

import inspect
import re
from collections.abc import Callable
from typing import Any, Final

from docstrings import ROLE

import bench

FUNCTIONS: Final = ("ask", "ask_all", "load", "plot")
SECTION: Final = re.compile(r"^(Args|Returns|Raises):$")
ENTRY: Final = re.compile(r"^    (\*{0,2}\w+): (.*)$")


def page() -> str:
    """``reference/python.md``."""
    lines = ["# Python", "", "How they are used: [Use rows in Python](../how-to/python.md).", ""]
    for name in FUNCTIONS:
        lines += _function(f"bench.{name}", getattr(bench, name))
    for name in bench.estimate.__all__:
        found = getattr(bench.estimate, name)
        if inspect.isfunction(found):
            lines += _function(f"bench.estimate.{name}", found)
    for name in ("InvalidRequest", "ShardbenchError", "Row"):
        lines += [f"## bench.{name}", "", *_text(getattr(bench, name)), ""]
    return "\n".join(lines)


def _function(name: str, function: Callable[..., Any]) -> list[str]:
    empty = inspect.Signature.empty
    signature = inspect.signature(function)
    parameters = [each.replace(annotation=empty) for each in signature.parameters.values()]
    shown = signature.replace(parameters=parameters, return_annotation=empty)
    return [f"## {name}", "", "```python", f"{name}{shown}", "```", "", *_text(function), ""]


def _text(documented: Any) -> list[str]:
    """The docstring as Markdown, the entries of its sections as lists."""
    text = ROLE.sub(r"`\1`", inspect.getdoc(documented) or "").replace("``", "`")
    lines, is_entries = list[str](), False
    for line in text.splitlines():
        if section := SECTION.match(line):
            is_entries = section[1] != "Returns"
            lines += [f"**{section[1]}**", ""]
        elif is_entries and (entry := ENTRY.match(line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            lines.append(line.strip())
    return lines
