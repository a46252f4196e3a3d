"""The first page of the report of all rows: which findings, which figure, which table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from bench.report.claims.contenders import HEADLINE_LENGTHS, Curve
from bench.report.main.architectures import architectures_figure
from bench.report.main.best import decode_table, headline_table
from bench.report.main.evidence import evidence_table
from bench.report.main.figure_measured import mfu_over_chips, step_time_over_batch
from bench.report.main.figure_mfu import mfu_over_latency
from bench.report.main.figure_pareto import cost_against_latency
from bench.report.main.figure_scatter import against_published
from bench.report.main.findings import Finding
from bench.report.main.quality import quality_figure
from bench.report.render.document import Front
from bench.rows.labels import answered
from bench.rows.pairing import Pair
from bench.rows.table import Table
from engines.core.row import Row

if TYPE_CHECKING:
    from bench.report.render.style import Drawn

MOST_FINDINGS: Final = 6
MOST_ROWS: Final = 12
"""Of the table: it shares its page with a figure."""
TOPICS: Final = (
    *("headline", "prediction error", "held-out error", "today's stacks", "claims", "smaller models", "validity"),
    *("highest MFU", "fastest decode step", "fastest layout", "out of memory", "rows"),
)
"""The order in which topics come to the first page, each with its first finding; others come after them."""


def front(rows: Sequence[Row], pairs: Sequence[Pair], all_curves: Sequence[Curve], found: Sequence[Finding]) -> Front:
    """The paper's comparison where the rows have it; else what is nearest to it."""
    tables = (headline_table(rows), decode_table(rows), evidence_table(rows))
    return Front(
        findings=first(found),
        draw=lambda: _figure(rows, pairs, all_curves),
        table=next(each for each in tables if each is not None and _fits(each)),
    )


def first(found: Sequence[Finding]) -> list[Finding]:
    """Up to :data:`MOST_FINDINGS`, one a topic while there are topics."""
    order = {topic: place for place, topic in enumerate(TOPICS)}
    of_topic: dict[str, Finding] = {}
    for each in found:
        of_topic.setdefault(each.topic, each)
    heads = sorted(of_topic.values(), key=lambda each: order.get(each.topic, len(order)))
    rest = [each for each in found if each not in heads]
    return [*heads, *rest][:MOST_FINDINGS]


def has_headline(all_curves: Sequence[Curve]) -> bool:
    """Whether the first page's figure is the comparison of the paper."""
    return any(curve.lengths == HEADLINE_LENGTHS for curve in all_curves)


def _figure(rows: Sequence[Row], pairs: Sequence[Pair], all_curves: Sequence[Curve]) -> "list[Drawn]":
    if has_headline(all_curves):
        drawn = mfu_over_latency(all_curves)
    elif any(answered(pair.answer) and answered(pair.reference) for pair in pairs):
        drawn = against_published(pairs)
    else:
        drawn = (
            quality_figure(rows)
            or architectures_figure(rows)
            or next(iter(cost_against_latency(rows)), None)
            or step_time_over_batch(rows)
            or mfu_over_chips(rows)
        )
    return [] if drawn is None else [drawn]


def _fits(table: Table) -> bool:
    return len(table.printed) <= MOST_ROWS
