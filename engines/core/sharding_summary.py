"""Shardings of every operator in a few words, for a table's cell."""

from collections.abc import Sequence
from typing import Final

from engines.core.shardings import Shardings

_SAID: Final = {"fused": "matmuls", "attn": "attention's matmuls", "ffn": "feed-forward"}
"""A projection of :func:`engines.core.shardings.projections` → what a reader calls it."""


def summary(shardings: Shardings) -> str:
    """The plan in a line: how each projection's matmuls cut tokens, rows and columns, and what attention is over.

    ``feed-forward in y→zx, out zx→y, attention over batch xyz``: rows that contract are over y, columns over z and x.
    Projections with the same cuts are named together; what is whole on every chip has no axes.
    """
    names = [name for name in _SAID if f"{name}.in" in shardings]
    told = {name: ", ".join(_matmul(shardings, f"{name}.{side}") for side in ("in", "out")) for name in names}
    alike = len(names) > 1 and len(set(told.values())) == 1
    parts = [f"matmuls {told[names[0]]}"] if alike else [f"{_SAID[name]} {told[name]}" for name in reversed(names)]
    sequences, heads = shardings["attention"]
    over = [f"{what} {axes}" for what, axes in (("batch", sequences), ("heads", heads)) if axes]
    if "experts" in shardings:
        parts.insert(0, _experts(shardings["experts"]))
    return ", ".join([*parts, f"attention over {' and '.join(over)}" if over else "attention whole"])


def _experts(dims: Sequence[str]) -> str:
    """``experts over z sent tokens and y, each -→x``: tokens are sent along z, chips along y have all of them."""
    exchanged, held, rows, columns, tokens, gathered = dims
    over = [*([f"{exchanged} sent tokens"] if exchanged else []), *([held] if held else [])]
    said = f"experts over {' and '.join(over)}" if over else "experts on every chip"
    said += f", each {rows or '-'}→{columns or '-'}" if rows or columns else ""
    split = f" tokens {tokens}{gathered}" if tokens or gathered else ""
    return said + split + (f" weights gathered over {gathered}" if gathered else "")


def _matmul(shardings: Shardings, name: str) -> str:
    tokens, rows, columns = shardings[name]
    said = name.rpartition(".")[2]
    used = f"{said} {rows or '-'}→{columns or '-'}" if rows or columns else f"{said} whole"
    stored = shardings[f"{name}.weights"]
    gathered = "".join(axis for axis in "".join(stored) if axis not in rows + columns)
    return used + (f" tokens {tokens}" if tokens else "") + (f" weights gathered over {gathered}" if gathered else "")
