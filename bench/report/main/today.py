"""Today's stacks: predictions beside published rows by chip and runtime, and what they err where not fitted."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.report.main.findings import Finding
from bench.rows.counted import counted
from bench.rows.error_stats import ErrorStats, error_stats
from bench.rows.interval import inside, relative_interval
from bench.rows.labels import answered
from bench.rows.pairing import Pair, pair_errors, pair_oom_counts
from bench.rows.table import Column, Table
from bench.validate.left_out import LeftOut, left_out_errors, stored_errors
from engines.published.systems import runtime_of

SOURCES: Final = ("predicted", "published")


@dataclass(frozen=True, slots=True)
class Compared:
    """A prediction and the published row that it is to be; ``left_out`` is its relative error without that source.

    None, where the constants were never fitted without it.
    """

    pair: Pair
    runtime: str
    left_out: float | None

    @property
    def where(self) -> tuple[str, str]:
        """Chip and runtime."""
        return self.pair.reference.hw, self.runtime

    @property
    def ratio(self) -> float | None:
        """Predicted over published time; None without both."""
        error = self.pair.relative_error
        return None if error is None or not answered(self.pair.answer) else 1 + error

    @property
    def interval(self) -> tuple[float, float] | None:
        """Predicted time over the ends of its 80% interval, the smaller first; None where it has none.

        The interval holds the published time where it holds :attr:`ratio`.
        """
        interval = relative_interval(self.pair.answer)
        return None if interval is None else (1 / interval[1], 1 / interval[0])


def compared(pairs: Sequence[Pair], told: Sequence[LeftOut] | None = None) -> list[Compared]:
    """The closed forms' answers to published rows, for the runtime that each row is of.

    ``told`` are the errors with sources left out: those that were stored with the constants, if it is None.
    """
    left_out = left_out_errors([pair.reference for pair in pairs], stored_errors() if told is None else told)
    found = []
    for pair in pairs:
        runtime = runtime_of(pair.reference.system or "")
        if pair.answer.source == "predicted" and runtime is not None and pair.answer.runtime == runtime:
            found.append(Compared(pair, runtime, left_out.get(pair.reference.point_id)))
    return found


def by_key(rows: Sequence[Compared], key: Callable[[Compared], Any]) -> dict[Any, list[Compared]]:
    """The rows by ``key``, the keys sorted."""
    groups: dict[Any, list[Compared]] = defaultdict(list)
    for each in rows:
        groups[key(each)].append(each)
    return dict(sorted(groups.items()))


def source_table(rows: Sequence[Compared]) -> Table | None:
    """Error of each source: in the fit, with the source left out of it, and what is uncertain about its rows."""
    cells = [_source_cells(name, group) for name, group in by_key(rows, _source).items()]
    if not cells:
        return None
    columns = [
        *(Column("reference", "source"), Column("runtime"), Column("hw")),
        Column("n", "rows", 1.0, ".0f"),
        Column("mean", "in the fit (%)", 100.0, ".1f"),
        Column("left_out", "left out (%)", 100.0, ".1f"),
        Column("bias", "bias (%)", 100.0, "+.1f"),
        Column("worst", "worst (%)", 100.0, ".0f"),
        Column("oom_missed", "oom missed", 1.0, ".0f"),
        Column("oom_false", "false oom", 1.0, ".0f"),
        Column("doubt"),
    ]
    return Table(
        name="error_by_source",
        caption="Mean error of the closed forms by source, and what is uncertain about it",
        columns=columns,
        rows=cells,
        shown=[cell | {"doubt": (cell["doubt"] or "").partition(";")[0]} for cell in cells],
        note="Left out: with constants that no row of the source has set. The CSV has doubts in full.",
    )


def _source(each: Compared) -> tuple[str, str]:
    return each.pair.reference.reference or "", each.runtime


def _source_cells(name: tuple[str, str], group: Sequence[Compared]) -> dict[str, Any]:
    pairs = [each.pair for each in group]
    cells: dict[str, Any] = {"reference": name[0], "runtime": name[1], "n": len(group)}
    cells["hw"] = ", ".join(sorted({pair.reference.hw for pair in pairs}))
    errors, without = pair_errors(pairs), left_out_stats(group)
    if errors is not None:
        cells |= {"mean": errors.mean, "bias": errors.bias, "worst": errors.worst}
    cells["left_out"] = None if without is None else without.mean
    doubts = Counter(doubt for pair in pairs if (doubt := pair.reference.details.get("doubt")))
    cells["doubt"] = doubts.most_common(1)[0][0] if doubts else None
    return cells | pair_oom_counts(pairs)


def left_out_stats(rows: Sequence[Compared]) -> ErrorStats | None:
    """Statistics of the errors with the source left out; None where there are none."""
    return error_stats(each.left_out for each in rows if each.left_out is not None)


def inside_interval(rows: Sequence[Compared]) -> tuple[int, int]:
    """How many published times lie in the prediction's 80% interval, of how many that have one."""
    timed = [each.pair for each in rows if each.ratio is not None]
    told = [inside(pair.answer, pair.reference.latency_s or 0.0) for pair in timed]
    known = [each for each in told if each is not None]
    return sum(known), len(known)


def today_findings(rows: Sequence[Compared]) -> list[Finding]:
    """What the comparison says, one figure a sentence; nothing without a pair of times."""
    errors = pair_errors(each.pair for each in rows)
    if errors is None:
        return []
    groups = {
        where: pair_errors(each.pair for each in mine) for where, mine in by_key(rows, lambda row: row.where).items()
    }
    means = {where: stats.mean for where, stats in groups.items() if stats is not None}
    numbers = {f"{runtime} on {hw}": mean for (hw, runtime), mean in means.items()}
    middle = statistics.median(means.values())
    found = [
        Finding(
            "today's stacks",
            SOURCES,
            f"The mean error of the closed forms is {middle:.1%} in the median of {counted(len(means), 'pair')} of a "
            "chip and a runtime that somebody published.",
            numbers,
        )
    ]
    hw, runtime = max(means, key=lambda where: means[where])
    found.append(
        Finding(
            "least certain stack",
            SOURCES,
            f"The closed forms err the most on {runtime} on {hw}: {means[hw, runtime]:.1%} on average.",
            numbers,
        )
    )
    without = left_out_stats(rows)
    if without is not None:
        found.append(
            Finding(
                "source left out",
                SOURCES,
                f"With the source of a row left out of the fit, the closed forms err by {without.mean:.1%} on average.",
                {"mean": without.mean, "p90": without.p90, "n": without.n},
            )
        )
    held, told = inside_interval(rows)
    if told:
        sentence = f"The intervals hold {held / told:.0%} of the published times, which also set them."
        found.append(Finding("intervals", SOURCES, sentence, {"inside": held, "rows": told}))
    oom = pair_oom_counts(each.pair for each in rows)
    if oom["oom_false"]:
        sentence = f"False out-of-memory answers: {oom['oom_false']} of {len(rows)} published points."
        found.append(Finding("false out of memory", SOURCES, sentence, oom))
    return found
