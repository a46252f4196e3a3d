"""Which findings, tables and figures make which report."""

from collections.abc import Sequence
from typing import Final, TypeVar

from bench.report.claims.checks import Check, check_claims, claims_table
from bench.report.claims.contenders import comparison_tables, curves
from bench.report.main.figure_measured import mfu_over_chips, step_time_over_batch
from bench.report.main.figure_mfu import all_lengths, mfu_over_latency
from bench.report.main.figure_pareto import cost_against_latency
from bench.report.main.figure_scatter import against_published
from bench.report.main.findings import Finding, findings, headline, prediction_error
from bench.report.main.provenance import calibration_table, environment_table
from bench.report.main.tables import beside_published, error_table, latency_tables, unanswered_table
from bench.report.render.document import Document, Section
from bench.rows.metrics import metrics_table
from bench.rows.pairing import pair_up
from engines.core.errors import ShardbenchError
from engines.core.row import Row

HOW_TO_READ: Final = (
    "Every row has a `source`, and nothing here mixes them: **measured** was timed by shardbench, **compiled** is what "
    "the compiler says for hardware that is absent, **predicted** is a closed form, **published** is what others "
    "printed. In figures, what was observed is filled with a solid line, what was computed is hollow. Where a measured "
    "row is not valid, its table says why, and neither findings nor lines in figures use it."
)
ROW_HELP: Final = (
    "A row holds SI units and fractions under the keys below, as the CSV files do; printed tables scale them as their "
    "headings say. An empty cell is unknown, or has no meaning for the row. An empty `ffn_layout` or `attn_sharding` "
    "was the engine's own choice."
)
T = TypeVar("T")


def full_report(rows: Sequence[Row], title: str) -> Document:
    """Everything that the rows hold."""
    pairs = pair_up(rows)
    all_curves = curves(rows, pairs)
    checks = check_claims(rows)
    sections = [
        Section(title="How to read it", text=HOW_TO_READ),
        Section(
            title="Against GPUs: MFU over latency",
            tables=[claims_table(checks)],
            draw=lambda: _present(mfu_over_latency(all_curves)),
        ),
        Section(
            title="Beside what was published",
            tables=_present(error_table(pairs), *beside_published(pairs)),
            draw=lambda: _present(against_published(pairs)),
        ),
        Section(title="Cost against latency", draw=lambda: cost_against_latency(rows)),
        Section(title="Measured", draw=lambda: _present(step_time_over_batch(rows), mfu_over_chips(rows))),
        Section(title="Latency and MFU", tables=latency_tables(rows, pairs)),
        Section(title="Points without a time", tables=_present(unanswered_table(rows))),
        Section(title="Where the rows come from", tables=_present(environment_table(rows), calibration_table(rows))),
    ]
    return Document(
        name="report",
        title=title,
        findings=[*findings(rows, pairs), *_claims_finding(checks)],
        sections=sections,
        appendix=f"## How to read a row\n\n{ROW_HELP}\n\n{metrics_table()}",
    )


def comparison_report(rows: Sequence[Row], title: str) -> tuple[Document, list[Check]]:
    """PaLM 540B and MT-NLG 530B on 64 TPU v4 against FasterTransformer, with the paper's claims as checks.

    Raises:
        ShardbenchError: the store holds no rows of any of them.
    """
    pairs = pair_up(rows)
    all_curves = curves(rows, pairs)
    if not all_curves:
        raise ShardbenchError("comparison: the store holds none of its rows; run shardbench run +sweep=published first")
    checks = check_claims(rows)
    ids = {row.point_id for curve in all_curves for row in curve.rows}
    mine = [pair for pair in pairs if pair.answer.point_id in ids]
    compared = [row for curve in all_curves for row in curve.rows]
    sections = [
        Section(title="How to read it", text=HOW_TO_READ),
        Section(title="Claims", tables=[claims_table(checks)]),
        Section(
            title="By batch", tables=comparison_tables(all_curves, mine), draw=lambda: _present(all_lengths(all_curves))
        ),
        Section(
            title="Where the rows come from", tables=_present(environment_table(compared), calibration_table(compared))
        ),
    ]
    found = [*headline(rows), *prediction_error(mine), *_claims_finding(checks)]
    return Document(name="comparison", title=title, findings=found, sections=sections), checks


def _claims_finding(checks: Sequence[Check]) -> list[Finding]:
    decided = [check for check in checks if check.passed is not None]
    if not decided:
        return []
    failed = [f"{check.claim.text} ({check.source}, {check.engine})" for check in decided if not check.passed]
    sentence = f"{len(decided) - len(failed)} of {len(decided)} checks of the paper's headline claims hold"
    sentence += f"; these do not: {'; '.join(failed)}." if failed else "."
    sources = tuple(dict.fromkeys(check.source for check in decided))
    return [Finding("claims", sources, sentence, {"checks": len(decided), "failed": len(failed)})]


def _present(*found: T | None) -> list[T]:
    return [each for each in found if each is not None]
