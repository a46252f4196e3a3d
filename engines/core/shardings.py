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

``NAME`` is ``fused`` where attention and feed-forward read one norm, else ``attn`` and ``ffn``. Beside experts, ``ffn``
is the expert of all tokens and the feed-forward of layers without experts.
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
_WRITTEN: Final = "use what plan planner=alpa out=FILE wrote"
EXPERTS: Final = "aekntg"
"""A letter for each dimension of ``experts``."""
PATTERN: Final = f"{_NAMED}:{_AXES}(?:/{_NAMED}:{_AXES})*"
"""Of :attr:`Shardings.text`."""


def projections(model: Model) -> tuple[str, ...]:
    """Names of a layer's projections: ``fused``, or ``attn`` and ``ffn``.

    Beside experts ``ffn`` is the expert of all tokens and the feed-forward of layers without experts, where a model has
    either.
    """
    if model.num_experts is not None and model.shared_expert_d_ff is None and not model.dense_layers:
        return ("attn",)
    return ("fused",) if model.shares_norm else ("attn", "ffn")


def hidden_columns(model: Model) -> tuple[int, ...]:
    """Hidden columns of every feed-forward that all tokens pass: that of layers without experts, that beside them."""
    found = [model.ffn.hidden_columns] if any(not kind.has_experts for kind in model.layer_kinds) else []
    shared = None if model.experts is None else model.experts.shared
    return (*found, *([] if shared is None else [shared.hidden_columns]))


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


def _check_axes(name: str, dims: Sequence[str]) -> None:
    said, letters = f"{name}:{'.'.join(axes or '-' for axes in dims)}", "".join(dims)
    unknown = sorted(set(letters) - set("xyz"))
    if unknown:
        raise InvalidRequest("shardings", said, f"splits along {unknown[0]}, which is no mesh axis", "use x, y and z")
    if len(set(letters)) < len(letters):
        raise InvalidRequest("shardings", said, "uses an axis twice", "let an axis split one dimension")


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
                raise InvalidRequest("shardings", entry, "is not NAME:AXES.AXES", _WRITTEN)
            dims = tuple("" if axes == "-" else axes for axes in found[2].split("."))
            _check_axes(found[1], dims)
            cuts[found[1]] = dims
        return cls.of(cuts)

    @classmethod
    def read(cls, cuts: object) -> "Shardings":
        """From what :meth:`to_dict` makes, as a file has it.

        Raises:
            InvalidRequest: a value is no list of axes, an axis is unknown, or splits two dimensions of a value.
        """
        if not isinstance(cuts, Mapping) or not cuts:
            raise InvalidRequest("shardings", repr(cuts), "names no values of a layer", _WRITTEN)
        for name, dims in cuts.items():
            if not isinstance(dims, list) or not all(isinstance(axes, str) for axes in dims):
                raise InvalidRequest(
                    "shardings",
                    f"{name}:{dims!r}",
                    "is no list of axes",
                    'give one string for each dimension, such as ["x", "zy"], and "" where nothing splits it',
                )
            _check_axes(name, dims)
            if len(dims) < 2 or re.fullmatch(_NAMED, name) is None:
                raise InvalidRequest("shardings", f"{name}:{'.'.join(dims)}", "is no value of a layer", _WRITTEN)
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
            if wanted.get(name) == found.get(name):
                continue
            if name in wanted:
                given = f"has {found[name]}" if name in found else "is missing"
                reason, remedy = f"{given}: model={model.name} needs {wanted[name]} dimensions of it", "give them"
            else:
                reason = f"is no value of model={model.name}"
                remedy = f"name {', '.join(sorted(wanted))}"
            raise InvalidRequest("shardings", name, reason, f"{remedy}, or use a plan of a model of this kind")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: list(dims) for name, dims in self.cuts}
