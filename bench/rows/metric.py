"""The definition of a metric, and the inputs of its formula."""

import ast
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from engines.core.point import Point
from engines.core.text import significant

Better = Literal["lower", "higher"]
PREFIXES: Final = {"m": 1e3, "G": 1e-9, "T": 1e-12, "Gi": 2.0**-30}
"""Prefix of a printed unit → what a value in the unit without it is multiplied by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Inputs of the formulas: a point, its times in seconds, the peaks of one chip, and earlier metrics (``done``).

    ``tokens`` counts the tokens of the whole phase, ``cached_tokens`` those whose keys and values the first decode step
    reads. ``mean_layers`` are the layers that a generated token passed; None where it passed all.
    """

    point: Point
    tokens: int
    cached_tokens: int
    latency_s: float
    prefill_s: float | None
    decode_s: float | None
    peak_flops_per_s: float | None
    hbm_bytes_per_s: float | None
    matmul_flops_per_s: float | None
    copy_bytes_per_s: float | None
    mean_layers: float | None
    done: Mapping[str, float | None]


def formatted(value: float, spec: str) -> str:
    """The number as ``spec`` says, with significant digits (``.4g``) never as ``1.234e+04``."""
    return significant(value, int(spec[1:-1])) if spec.endswith("g") else format(value, spec)


Compute = Callable[[Basis], float | None]


def docstring(compute: Compute) -> str:
    """A function's docstring as one line; read from its source under ``python -OO``, which drops docstrings."""
    text = compute.__doc__
    if text is None:
        definition = ast.parse(inspect.getsource(compute)).body[0]
        assert isinstance(definition, ast.FunctionDef)
        text = ast.get_docstring(definition)
    return " ".join((text or "").split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of a row. ``name`` is its key, ``scale`` and ``spec`` format it in tables, ``needs`` lists its inputs.

    ``formula`` is one sentence. ``compute`` is None for an observed metric (a median, bytes of memory).
    """

    name: str
    heading: str
    unit: str
    formula: str
    scale: float = 1.0
    spec: str = ".4g"
    needs: tuple[str, ...] = ()
    better: Better | None = None
    compute: Compute | None = None

    @property
    def title(self) -> str:
        """The heading of a table column: ``step time (ms)``."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    @property
    def si_unit(self) -> str:
        """The unit of a row's value, which is not scaled: ``s`` where tables print ms; empty for a number or share."""
        if self.scale == 1.0 or self.unit == "%":
            return self.unit.removesuffix("%")
        prefix = next(each for each, scale in PREFIXES.items() if scale == self.scale)
        return re.sub(rf"\b{prefix}(?=[A-Za-z])", "", self.unit, count=1)

    def show(self, value: float | None) -> str:
        """The value scaled and formatted for a table; empty for None or NaN."""
        if value is None or math.isnan(value):
            return ""
        return formatted(value * self.scale, self.spec)
