"""What a metric is, and what its formula is computed from."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from engines.core.point import Point

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What the formulas start from: a point, seconds of its stages, one chip's peaks, and the metrics before.

    ``tokens`` passed through the model and ``cached_tokens`` are what the first decode step reads.
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
    done: Mapping[str, float | None]


Compute = Callable[[Basis], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure. ``name`` is the row's key, ``scale`` and ``spec`` are for tables, ``needs`` names what it is from.

    ``formula`` is one sentence. ``compute`` is None for what is observed and not derived (a median, bytes of memory).
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
        """The heading of a table's column: ``step time (ms)``."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    def show(self, value: float | None) -> str:
        """The value as a table prints it, scaled; nothing for None or NaN."""
        if value is None or math.isnan(value):
            return ""
        return format(value * self.scale, self.spec)
