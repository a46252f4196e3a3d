"""Shardings of every operator of a layer, as a planner chose them: which mesh axes split which dimension of what.

A layout of :mod:`engines.core.layout` names one way to split all operators alike; here each has its own. Axes are
letters, slowest first, such as ``zy``; a mesh axis splits at most one dimension of a value.

====================  ========================================================================================
``residual``          [tokens, E] where a layer starts; ``middle`` where the feed-forward of a serial block does
``table``             [E, vocabulary] of the embedding and of the output matrix
``NAME.in``           [tokens, E, columns] of a projection's matmul in: what it reads, contracts and makes
``NAME.out``          [tokens, rows, E] of its matmul out
``NAME.in.weights``   [E, columns] of its matrix in memory, ``NAME.out.weights`` [rows, E]
``NAME.columns``      [tokens, columns] between the two, ``NAME.joined`` [tokens, rows] behind attention
``attention``         [sequences, heads] of queries, keys, values and their cache
``experts``           [experts whose tokens are sent to them, experts of chips that have all tokens, E, columns, tokens,
                      tokens beside gathered weights] of a feed-forward of experts, in place of ``ffn``
====================  ========================================================================================

``NAME`` is ``fused`` where attention and feed-forward read one norm, else ``attn`` and ``ffn``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from engines.core.digest import digest
from engines.core.errors import InvalidRequest
from engines.core.model import Model

_NAMED: Final = r"[a-z]+(?:\.[a-z]+)*"
_AXES: Final = r"(?:-|[xyz]{1,3})(?:\.(?:-|[xyz]{1,3}))+"
_ENTRY: Final = re.compile(f"({_NAMED}):({_AXES})")
EXPERTS: Final = "aekntg"
"""A letter for each dimension of ``experts``."""
PATTERN: Final = f"{_NAMED}:{_AXES}(?:/{_NAMED}:{_AXES})*"
"""Of :attr:`Shardings.text`."""


def projections(model: Model) -> tuple[str, ...]:
    """Names of a layer's projections: ``fused``, or ``attn`` and ``ffn``; ``attn`` alone beside experts."""
    if model.num_experts is not None:
        return ("attn",)
    return ("fused",) if model.shares_norm else ("attn", "ffn")


def sharded_values(model: Model) -> Mapping[str, int]:
    """Name of every value of a layer that has shardings → its number of dimensions."""
    found = {"attention": 2, "residual": 2, "table": 2}
    if model.block == "serial":
        found["middle"] = 2
    if model.num_experts is not None:
        found["experts"] = len(EXPERTS)
    for name in projections(model):
        for side in ("in", "out"):
            found |= {f"{name}.{side}": 3, f"{name}.{side}.weights": 2}
        found |= {f"{name}.columns": 2} if name == "ffn" else {f"{name}.columns": 2, f"{name}.joined": 2}
    return found


@dataclass(frozen=True)
class Shardings:
    """Name of a value → mesh axes of each of its dimensions, of every value of :func:`sharded_values`."""

    cuts: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, cuts: Mapping[str, Sequence[str]]) -> "Shardings":
        """From name → axes of each dimension."""
        return cls(tuple((name, tuple(cuts[name])) for name in sorted(cuts)))

    @classmethod
    def parse(cls, text: str) -> "Shardings":
        """Read :attr:`text`.

        Raises:
            InvalidRequest: it is no such text, or an axis splits two dimensions of a value.
        """
        cuts: dict[str, tuple[str, ...]] = {}
        for entry in text.split("/"):
            found = _ENTRY.fullmatch(entry)
            if found is None:
                raise InvalidRequest(
                    "shardings", entry, "is not NAME:AXES.AXES", "use what plan planner=alpa out=FILE wrote"
                )
            dims = tuple("" if axes == "-" else axes for axes in found[2].split("."))
            letters = "".join(dims)
            if len(set(letters)) < len(letters):
                raise InvalidRequest("shardings", entry, "uses an axis twice", "let an axis split one dimension")
            cuts[found[1]] = dims
        return cls.of(cuts)

    @property
    def text(self) -> str:
        """Every cut as ``NAME:AXES.AXES``, ``-`` for none, joined by ``/`` in the order of names."""
        return "/".join(f"{name}:{'.'.join(axes or '-' for axes in dims)}" for name, dims in self.cuts)

    @property
    def digest(self) -> str:
        """A digest of :attr:`text`."""
        return digest(self.text)

    @cached_property
    def _by_name(self) -> dict[str, tuple[str, ...]]:
        return dict(self.cuts)

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def check(self, model: Model) -> None:
        """Check that these are the values of a layer of ``model``.

        Raises:
            InvalidRequest: one is missing, one too many, or of other dimensions.
        """
        wanted = sharded_values(model)
        found = {name: len(dims) for name, dims in self.cuts}
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                has = "has none" if name not in wanted else f"needs {wanted[name]} dimensions of it"
                raise InvalidRequest(
                    "shardings", name, f"does not fit: model={model.name} {has}", "use a plan of a model of this kind"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: list(dims) for name, dims in self.cuts}
