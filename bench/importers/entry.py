"""What a file says of one point."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engines.core.engine import Estimate
from engines.core.point import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a server under load did: tokens of prompts and answers together per second, and medians over requests."""

    tokens_per_s: float
    ttft_s: float | None = None
    tpot_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedResult:
    """One row to be.

    ``stated`` holds the keys of the point that the file itself states; ``model_name`` and ``hw_name`` are its names
    for them, which may be no choices of ``conf/``. ``load`` is for a server under load, whose ``estimate`` has no time.
    ``needs`` names further keys that the user must give, each with the reason.
    """

    phase: Phase
    stated: Mapping[str, Any]
    estimate: Estimate
    model_name: str | None = None
    hw_name: str | None = None
    load: Load | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
