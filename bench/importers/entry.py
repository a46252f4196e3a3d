"""One result in an imported file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.importers.known import Known
from engines.core.point import Point
from engines.core.point_keys import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedResult:
    """The content of one row, each value with its origin.

    ``timed_by`` names the harness, ``system`` what it measured. ``point`` holds keys of the point. ``figures`` holds
    fields of a row in SI units: ``latency_s`` (with ``samples_s``, ``ttft_s``, ``step_time_s`` where known) of a static
    batch; ``tokens_per_s`` (input and output), ``ttft_s`` and ``tpot_s`` of a server. ``load`` holds the rest of a
    server's figures; a dot in a name groups (``ttft_s.p99``). ``model`` and ``hw`` are the file's names, which may not
    be choices of ``conf/``.

    ``needs`` maps further keys that the user must give to the reason; ``varies`` maps keys that the file says have no
    one value, which nobody may give, to what it says of them. ``invalid_reason`` says why the row is not valid.
    ``check`` raises InvalidRequest for a point, the user's keys in it, that cannot be the one that ran.
    """

    phase: Phase
    timed_by: str
    system: str
    point: Mapping[str, Known]
    figures: Mapping[str, Known]
    load: Mapping[str, Known] = field(default_factory=dict)
    model: Known | None = None
    hw: Known | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
    varies: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    invalid_reason: str | None = None
    check: Callable[[Point], None] | None = None
