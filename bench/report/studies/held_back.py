"""What keeps the fastest program of each workload from being faster, told from its row."""

from collections.abc import Sequence

from bench.report.studies.rows import parts_of
from bench.rows.frontier import time_of
from engines.core.row import Row
from engines.core.text import significant

MS_BELOW_S = 1.0


def held_back(rows: Sequence[Row]) -> str:
    """A sentence a workload on the fastest compiled row: its limits, and what it takes beyond them; "" without rows."""
    fastest = dict[tuple[str, int, str], Row]()
    for row in rows:
        key = (row.phase, row.batch_size, row.weight_dtype)
        seconds, before = time_of(row), fastest.get(key)
        if row.source != "compiled" or row.status != "ok" or not seconds:
            continue
        if before is None or seconds < (time_of(before) or 0):
            fastest[key] = row
    sentences = [_sentence(row) for row in fastest.values()]
    return " ".join(["What holds each back, by its fastest row:", *sentences]) if any(sentences) else ""


def _sentence(row: Row) -> str:
    parts, seconds = parts_of(row), time_of(row)
    if parts is None or not seconds or row.mfu is None:
        return ""
    computation = parts.memory_s + parts.compute_s

    def told(value: float) -> str:
        return f"{significant(1e3 * value)} ms" if seconds < MS_BELOW_S else f"{significant(value)} s"

    return (
        f"{row.phase} at batch {row.batch_size} ({row.weight_dtype}) takes {told(seconds)}; its arithmetic at the "
        f"datasheet's peak alone would take {told(row.mfu * seconds)} and its HBM traffic {told(parts.memory_s)}; the "
        f"compiler's schedule computes for {told(computation)}, the least that overlapping all collectives could "
        f"reach, and {told(parts.exposed_s)} of communication are exposed."
    )
