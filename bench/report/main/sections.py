"""Which findings, tables and figures make which report."""

from collections.abc import Sequence
from typing import Final, TypeVar

from bench.report.claims.checks import Check, check_claims, claims_table
from bench.report.claims.contenders import comparison_tables, curves
from bench.report.main.architectures import (
    architectures_figure,
    architectures_findings,
    architectures_table,
    experts_table,
)
from bench.report.main.best import decode_table, headline_table, layout_table
from bench.report.main.dollars import dollars_over_time, dollars_table
from bench.report.main.evidence import evidence_table, failures_table, table_2
from bench.report.main.figure_measured import mfu_over_chips, step_time_over_batch
from bench.report.main.figure_mfu import all_lengths
from bench.report.main.figure_pareto import cost_against_latency
from bench.report.main.figure_scatter import against_published
from bench.report.main.figure_today import by_chip_and_runtime
from bench.report.main.findings import Finding, findings, headline, prediction_error
from bench.report.main.front import front
from bench.report.main.programs import programs_table
from bench.report.main.provenance import calibration_table, environment_table
from bench.report.main.quality import quality_figure, quality_finding, quality_table
from bench.report.main.serving import batches, served_table
from bench.report.main.tables import beside_published, error_table, latency_tables, unanswered_table
from bench.report.main.today import compared, source_table, today_findings
from bench.report.render.document import Document, Section
from bench.rows.metrics import METRICS
from bench.rows.pairing import pair_up
from bench.rows.table import Column, Table
from bench.rows.wrong_peaks import withhold_wrong_shares
from engines.core.errors import ShardbenchError
from engines.core.row import Row

HOW_TO_READ: Final = (
    "Every row has a `source`, and no figure or table mixes sources without saying so. In figures, filled markers and "
    "solid lines are observed, hollow markers are computed. A measured row that is not valid says why in its "
    "table; no finding and no line of a figure uses it."
)
ROW_HELP: Final = (
    "CSV files hold SI units and fractions under these keys; printed tables scale them as their headings say. An empty "
    "cell is unknown or does not apply. An empty `ffn_layout` or `attn_sharding` was left to the engine."
)
T = TypeVar("T")


def full_report(rows: Sequence[Row], title: str) -> Document:
    """All that the rows hold: what matters on one page, the rest in the appendix, long tables in files of their own."""
    everything, rows = rows, withhold_wrong_shares(batches(rows))
    pairs = pair_up(rows)
    all_curves = curves(rows, pairs)
    stacks = compared(pairs)
    checks = check_claims(rows)
    sections = [
        Section(title="Evidence", text=HOW_TO_READ, tables=[evidence_table(everything)]),
        Section(title="Table 2 of the paper", tables=_present(table_2(rows, pairs))),
        Section(
            title="Error against published latencies",
            tables=_present(error_table(pairs)),
            linked=beside_published(pairs),
            draw=lambda: _present(against_published(pairs)),
        ),
        Section(
            title="Today's stacks",
            tables=_present(source_table(stacks)),
            draw=lambda: _present(by_chip_and_runtime(stacks)),
        ),
        *_architectures(rows),
        *_quality(rows),
        Section(title="Claims of the paper", tables=[claims_table(checks)]),
        Section(
            title="Cost against latency",
            tables=_present(decode_table(rows)),
            draw=lambda: cost_against_latency(rows),
        ),
        *_dollars(rows),
        Section(
            title="Measured",
            linked=_present(layout_table(rows)),
            draw=lambda: _present(step_time_over_batch(rows), mfu_over_chips(rows)),
        ),
        *(Section(title="Servers under load", tables=[served]) for served in _present(served_table(everything))),
        *(Section(title="Programs of others", tables=[each]) for each in _present(programs_table(everything))),
        Section(title="What failed", tables=_present(failures_table(rows)), linked=_present(unanswered_table(rows))),
        Section(title="Latency and MFU of all rows", linked=latency_tables(rows, pairs)),
        Section(
            title="Provenance",
            tables=_present(environment_table(rows), calibration_table(rows)),
            linked=[_metrics_table()],
        ),
    ]
    found = [*findings(rows, pairs), *quality_finding(rows), *today_findings(stacks), *architectures_findings(rows)]
    found += _claims_finding(checks)
    top = front(rows, pairs, all_curves, found)
    return Document(name="report", title=title, findings=found, sections=sections, front=top)


def _dollars(rows: Sequence[Row]) -> list[Section]:
    """Costs in dollars, where the command was given prices."""
    table = dollars_table(rows)
    if table is None:
        return []
    return [Section(title="Cost in dollars", tables=[table], draw=lambda: _present(dollars_over_time(rows)))]


def _architectures(rows: Sequence[Row]) -> list[Section]:
    """Today's architectures and what experts buy, where the sweep of that name has run."""
    table, experts = architectures_table(rows), experts_table(rows)
    if table is None and experts is None:
        return []
    return [
        Section(
            title="Today's architectures",
            tables=_present(experts),
            linked=_present(table),
            draw=lambda: _present(architectures_figure(rows)),
        )
    ]


def _quality(rows: Sequence[Row]) -> list[Section]:
    """Pruned, distilled and quantised models, where rows state their quality."""
    table = quality_table(rows)
    if table is None:
        return []
    return [Section(title="Smaller models", tables=[table], draw=lambda: _present(quality_figure(rows)))]


def _metrics_table() -> Table:
    """Every metric of a row: its key, its heading and its formula."""
    return Table(
        name="metrics",
        caption="How to read a row",
        columns=[Column("key"), Column("heading"), Column("formula")],
        rows=[{"key": each.name, "heading": each.title, "formula": each.formula} for each in METRICS.values()],
        note=ROW_HELP,
    )


def comparison_report(rows: Sequence[Row], title: str) -> tuple[Document, list[Check]]:
    """PaLM 540B and MT-NLG 530B on 64 TPU v4 against FasterTransformer, with the paper's claims as checks.

    Raises:
        ShardbenchError: the store holds no rows of any of them.
    """
    rows = withhold_wrong_shares(batches(rows))
    pairs = pair_up(rows)
    all_curves = curves(rows, pairs)
    if not all_curves:
        raise ShardbenchError("comparison: the store holds none of its rows; run shardbench run +sweep=published first")
    checks = check_claims(rows)
    ids = {row.point_id for curve in all_curves for row in curve.rows}
    mine = [pair for pair in pairs if pair.answer.point_id in ids]
    compared = [row for curve in all_curves for row in curve.rows]
    summary, *by_batch = comparison_tables(all_curves, mine)
    sections = [
        Section(title="Evidence", text=HOW_TO_READ, tables=[evidence_table(compared)]),
        Section(
            title="MFU over latency",
            tables=_present(headline_table(rows)),
            linked=[summary, *by_batch],
            draw=lambda: _present(all_lengths(all_curves)),
        ),
        Section(title="Claims", tables=[claims_table(checks)]),
        Section(title="Provenance", tables=_present(environment_table(compared), calibration_table(compared))),
    ]
    found = [*headline(rows), *prediction_error(mine), *_claims_finding(checks)]
    return Document(name="comparison", title=title, findings=found, sections=sections), checks


def _claims_finding(checks: Sequence[Check]) -> list[Finding]:
    decided = [check for check in checks if check.passed is not None]
    if not decided:
        return []
    failed = [check.claim.text for check in decided if not check.passed]
    sentence = f"{len(decided) - len(failed)} of {len(decided)} checks of the paper's claims hold."
    sources = tuple(dict.fromkeys(check.source for check in decided))
    return [Finding("claims", sources, sentence, {"checks": len(decided), "failed": failed})]


def _present(*found: T | None) -> list[T]:
    return [each for each in found if each is not None]
