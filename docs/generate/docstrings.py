"""Docstrings as Markdown, read from the source without importing it."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
MARK: Final = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
TABLE: Final = re.compile(r"^=+(?: +=+)+\n(?:.*\S.*\n)*?=+(?: +=+)+(?:\n(?:.*\S.*\n)*?=+(?: +=+)+)?$", re.MULTILINE)
ROLE: Final = re.compile(r":(?:mod|class|func|meth|attr|data):`~?([^`]+)`")


def expand(markdown: str) -> str:
    """Replace every line ``::: a.b.name`` by what that docstring says."""
    return MARK.sub(lambda match: _block(match[1]), markdown)


def _block(name: str) -> str:
    text = ROLE.sub(r"`\1`", docstring(name)).split("\nRaises:")[0].strip()
    text = TABLE.sub(lambda match: _table(match[0]), text)
    quoted = "\n".join(f"    {line}" for line in text.splitlines())
    return f'!!! quote "`{name}`"\n\n{quoted}'


def _table(text: str) -> str:
    """A simple table of reStructuredText as one of Markdown; a line with an empty first column continues a row."""
    lines = text.splitlines()
    spans = [match.span() for match in re.finditer("=+", lines[0])]
    rows: list[list[str]] = []
    for line in lines[1:]:
        if line.startswith("="):
            continue
        ends = [*(begin for begin, _ in spans[1:]), None]
        cells = [line[begin:end].strip() for (begin, _), end in zip(spans, ends, strict=True)]
        if cells[0] or not rows:
            rows.append(cells)
        else:
            rows[-1] = [f"{before} {more}".strip() for before, more in zip(rows[-1], cells, strict=True)]
    if sum(line.startswith("=") for line in lines) < 3:  # without a heading
        rows.insert(0, [""] * len(spans))
    rows.insert(1, ["---"] * len(spans))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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
    package = path / "__init__.py"  # a folder of data may stand beside a module of its name
    return package if package.is_file() else path.with_suffix(".py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
