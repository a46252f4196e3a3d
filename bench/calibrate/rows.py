"""Which of a user's rows a calibration takes: those of one chip and one runtime that do not contradict each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.sweep.runtimes import load_runtime
from bench.validate.case import Case
from bench.validate.contradictions import Contradiction, contradictions
from engines.core.chip import Chip
from engines.core.errors import InvalidRequest
from engines.core.runtime import AUTO, Runtime, shipped

LEAST_ROWS: Final = 5
"""Fewer rows tell a constant from another by chance."""
GROUPS: Final[tuple[tuple[str, Callable[[Case], str]], ...]] = (
    ("source", lambda case: case.reference),
    ("model", lambda case: case.point.model.name),
    ("phase and parallelism", lambda case: f"{case.point.phase} {case.parallelism}"),
    ("batch", lambda case: case.batch),
    ("length", lambda case: f"{case.point.input_len}/{case.point.output_len}"),
)
"""By what rows are left out together: the first of which there are several, the most different first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRows:
    """The rows to fit, their ``groups`` [rows] of the kind ``by``, and what is not fitted as it contradicts itself."""

    chip: Chip
    runtime: Runtime
    cases: Sequence[Case]
    groups: Sequence[str]
    by: str
    contradicting: Sequence[Contradiction]


def own_rows(cases: Sequence[Case], hw: str | None, runtime: str | None) -> OwnRows:
    """The rows of one chip and runtime.

    Args:
        cases: all that was read.
        hw: the chip, where they are of several.
        runtime: the runtime whose constants are sought; by default the one that their ``system`` names.

    Raises:
        InvalidRequest: no row is of that chip, they are of several chips or runtimes, no runtime is known, or there are
            too few.
    """
    timed = [case for case in cases if case.latency_s is not None]
    chip = _one("hw", hw, [case.point.chip.name for case in timed])
    timed = [case for case in timed if case.point.chip.name == chip]
    name = runtime or _one("runtime", None, [case.runtime for case in timed])
    if name == AUTO:
        raise InvalidRequest(
            "runtime", AUTO, "names no runtime, and neither do the rows", "give runtime= one of conf/runtime"
        )
    asked = load_runtime(name) or shipped()
    differing = contradictions(timed)
    doubtful = {id(case) for each in differing for case in each.cases}
    kept = [replace(case, point=replace(case.point, runtime=asked)) for case in timed if id(case) not in doubtful]
    if len(kept) < LEAST_ROWS:
        also = f" beside {len(doubtful)} that contradict each other" if doubtful else ""
        raise InvalidRequest(
            "data",
            f"{len(kept)} rows",
            f"of hw={chip} and runtime={name}{also} are too few to fit",
            f"use {LEAST_ROWS} or more, of several batches and lengths",
        )
    by, groups = _groups(kept)
    return OwnRows(chip=kept[0].point.chip, runtime=asked, cases=kept, groups=groups, by=by, contradicting=differing)


def _one(key: str, asked: str | None, found: Sequence[str]) -> str:
    known = list(dict.fromkeys(found))
    if asked is not None and asked not in known:
        raise InvalidRequest(key, asked, "is of none of the rows", f"use {' or '.join(known) or 'other data'}")
    if asked is None and len(known) != 1:
        if not known:
            raise InvalidRequest("data", "", "holds no row with a time", "use measured rows")
        raise InvalidRequest(
            key, ", ".join(known), "are several, and constants are fitted to one", f"give {key}={known[0]} or another"
        )
    return asked or known[0]


def _groups(cases: Sequence[Case]) -> tuple[str, list[str]]:
    for by, group in GROUPS:
        found = [group(case) for case in cases]
        if len(set(found)) > 1:
            return by, found
    return "", [""] * len(cases)
