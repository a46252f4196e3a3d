"""Docstrings as Markdown, read from the source without importing it."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
MARK: Final = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
ROLE: Final = re.compile(r":(?:mod|class|func|meth|attr|data):`~?([^`]+)`")


def expand(markdown: str) -> str:
    """Replace every line ``::: a.b.name`` by what that docstring says."""
    return MARK.sub(lambda match: _block(match[1]), markdown)


def _block(name: str) -> str:
    text = ROLE.sub(r"`\1`", docstring(name)).split("\nRaises:")[0].strip()
    short = name.rpartition(".")[2]
    if "=====" in text:  # a reStructuredText table: its columns hold only where every character is as wide
        return f'```text title="{short}"\n{text}\n```'
    quoted = "\n".join(f"    {line}" for line in text.splitlines())
    return f'!!! quote "`{name}`"\n\n{quoted}'


def docstring(name: str) -> str:
    """The docstring of ``package.module`` or ``package.module.name``.

    Raises:
        LookupError: there is no such module or name, or it has no docstring.
    """
    module, inside = name, ""
    while not (path := _path(module)).is_file():
        module, _, last = module.rpartition(".")
        inside = f"{last}.{inside}".rstrip(".")
        if not module:
            raise LookupError(f"::: {name}: no such module")
    node: ast.AST = _tree(path)
    for part in filter(None, inside.split(".")):
        node = next((each for each in ast.iter_child_nodes(node) if getattr(each, "name", None) == part), ast.Pass())
    found = ast.get_docstring(node) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) else None
    if not found:
        raise LookupError(f"::: {name}: has no docstring in {path.relative_to(ROOT)}")
    return found


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
