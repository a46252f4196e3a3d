"""What a file states of a server under load."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bench.importers.known import Known


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a file states of a server under load; None is not stated.

    Counts of requests: ``prompts`` sent, ``completed``, ``failed``. ``limit`` is the most that may be in flight,
    ``peak`` the most that were counted. Tokens are of all completed requests, rates are per second and of all chips
    together. ``request_rate`` is what was asked: a number, or ``inf``. ``statistics`` maps ``ttft_s.p99`` to seconds.
    ``tokens`` are input and output together, where the file does not tell them apart. ``input_lens`` and
    ``output_lens`` are of single requests, ``input_range`` and ``output_range`` their least and most. ``more`` are
    further figures in SI units.
    """

    prompts: Known | None = None
    completed: Known | None = None
    failed: Known | None = None
    limit: Known | None = None
    peak: Known | None = None
    duration_s: Known | None = None
    input_tokens: Known | None = None
    output_tokens: Known | None = None
    tokens: Known | None = None
    requests_per_s: Known | None = None
    input_tokens_per_s: Known | None = None
    output_tokens_per_s: Known | None = None
    tokens_per_s: Known | None = None
    request_rate_per_s: Known | None = None
    burstiness: Known | None = None
    goodput_requests_per_s: Known | None = None
    input_lens: Known | None = None
    output_lens: Known | None = None
    input_range: Known | None = None
    output_range: Known | None = None
    statistics: Mapping[str, Known] = field(default_factory=dict)
    more: Mapping[str, Known] = field(default_factory=dict)


NOT_IN_LOAD: Final = frozenset(
    {"tokens_per_s", "input_lens", "output_lens", "input_range", "output_range", "statistics", "more"}
)
LOAD_NAMES: Final = {
    "prompts": "requests",
    "limit": "max_concurrency",
    "peak": "peak_concurrency",
}
"""Field of :class:`Served` → name in ``load``, where it is another."""
