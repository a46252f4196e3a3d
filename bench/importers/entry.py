"""One result in an imported file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engines.core.engine import Estimate
from engines.core.point import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Results of a server under load: input plus output tokens per second, and medians over requests in seconds."""

    tokens_per_s: float
    ttft_s: float | None = None
    tpot_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedResult:
    """The content of one row.

    ``stated`` holds the keys of the point that the file states; ``model_name`` and ``hw_name`` are the file's names,
    which may not be choices of ``conf/``. ``load`` is set for a server under load, whose ``estimate`` has no time.
    ``needs`` maps further keys that the user must give to the reason.
    """

    phase: Phase
    stated: Mapping[str, Any]
    estimate: Estimate
    model_name: str | None = None
    hw_name: str | None = None
    load: Load | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
