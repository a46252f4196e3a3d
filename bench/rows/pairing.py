"""Pairs of rows of different sources that answer the same point."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Final

from bench.rows.error_stats import ErrorStats, error_stats, oom_counts, relative_error
from bench.rows.labels import answered
from engines.core.point import Point, default_act_dtype
from engines.core.row import Row
from engines.core.runtime import AUTO

OPEN: Final = ("runtime", *(name for name, key in Point.schema().items() if key.about.engine_chooses))
"""Keys that a point may leave to the engine."""
STATED: Final = ("model", "hw", *(name for name in Point.schema() if name not in OPEN))
"""Keys that every question states."""
DEFAULTS: Final = {name: key.default for name, key in Point.schema().items() if key.default is not MISSING}
"""What a row of before a key was one was asked with."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A row and the reference row of the same point."""

    answer: Row
    reference: Row

    @property
    def relative_error(self) -> float | None:
        """(answer − reference) / reference of the latency; None where either has none."""
        return relative_error(self.answer.latency_s, self.reference.latency_s)


def pair_up(rows: Sequence[Row], reference: str = "published") -> list[Pair]:
    """Each reference row with the rows of every other source and engine that answer it, one for each engine.

    Rows answer the same point when all keys that were stated are equal. A key that the reference leaves open (an empty
    cell of a published table) matches a row that left it open too, whatever its engine then chose; a key that the
    reference states matches the same value, requested or chosen. What is predicted of one runtime is no answer for
    another; what was measured or compiled is by the runtime of its engine, and is compared with any. Of several
    matching rows of an engine, the one with the most open keys is taken.
    """
    # A store may ask a question thousands of times: rows that are alike in all that decides are looked at once.
    references = [(row, stated(row)) for row in rows if row.source == reference]
    answers: dict[tuple[Any, ...], dict[tuple[Any, ...], Row]] = {asked: {} for _, asked in references}
    for row in rows:
        if row.source != reference and (asked := stated(row)) in answers:
            answers[asked].setdefault(_left_open(row), row)
    found: dict[tuple[Any, ...], list[Row]] = {}
    pairs = []
    for row, asked in references:
        key = (asked, _left_open(row))
        if key not in found:
            found[key] = _answers(row, answers[asked].values())
        pairs += [Pair(answer, row) for answer in found[key]]
    return pairs


def _answers(reference: Row, rows: Iterable[Row]) -> list[Row]:
    """Of rows of one question, those that answer a reference row: one of each source and engine, sorted by both."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        if all(_meets(row, reference, key) for key in OPEN):
            kind = (row.source, row.engine)
            if kind not in found or _open_keys(row) > _open_keys(found[kind]):
                found[kind] = row
    return [found[kind] for kind in sorted(found)]


def _left_open(row: Row) -> tuple[Any, ...]:
    """All of a row, beside its question, that decides what it answers, and is answered by."""
    values = (tuple(value) if isinstance(value, list) else value for value in (getattr(row, key) for key in OPEN))
    return (row.source, row.engine, *values, *(is_open(row, key) for key in OPEN))


def pair_errors(pairs: Iterable[Pair]) -> ErrorStats | None:
    """Error statistics of the latencies of pairs in which both rows have a valid time; None without such a pair."""
    both = (pair for pair in pairs if answered(pair.answer) and answered(pair.reference))
    return error_stats(pair.relative_error for pair in both if pair.relative_error is not None)


def pair_oom_counts(pairs: Iterable[Pair]) -> dict[str, int]:
    """Hits, misses and false alarms of out-of-memory answers (:func:`oom_counts`)."""
    return oom_counts((pair.reference.status, pair.answer.status) for pair in pairs)


def stated(row: Row) -> tuple[Any, ...]:
    """The values of :data:`STATED`. What an imported row leaves unstated is asked of engines by their defaults."""
    return question({key: getattr(row, key) for key in STATED})


def question(asked: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of :data:`STATED` among those of a point or a row; one that is missing counts as its key's default."""
    act_dtype = asked["act_dtype"] or default_act_dtype(asked["weight_dtype"])
    defaults = {**DEFAULTS, "act_dtype": act_dtype, "kv_dtype": asked["kv_dtype"] or act_dtype}
    return tuple(asked[key] or defaults.get(key, asked[key]) for key in STATED)


def _meets(answer: Row, reference: Row, key: str) -> bool:
    wanted = getattr(reference, key)
    given = getattr(answer, key)
    if key == "runtime":
        return answer.source != "predicted" or wanted == given or wanted in (None, AUTO) or given in (None, AUTO)
    if is_open(reference, key):
        return is_open(answer, key) or given == wanted
    return bool(given == wanted)


def is_open(row: Row, key: str) -> bool:
    """Whether the point left this key to the engine. Keys that a published row states are not open."""
    value = getattr(row, key)
    if value in (None, "auto"):
        return True
    return key in row.chosen and row.source != "published"


def _open_keys(row: Row) -> int:
    return sum(is_open(row, key) for key in OPEN)
