"""Latency against cost per token of every system, sources told apart: a figure and a table of each setting."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from bench.report.field.figure import field_figure
from bench.report.field.systems import of_field, system_of
from bench.report.field.table import (
    STEP_LIMIT_S,
    fastest_and_cheapest,
    file_name,
    same_text,
    setting_of,
    systems_table,
    without_time,
)
from bench.report.main.evidence import evidence_table
from bench.report.main.findings import Finding
from bench.report.render.document import Document, Front, Section
from bench.rows.frontier import time_of
from bench.rows.labels import answered
from engines.core.errors import ShardbenchError
from engines.core.row import Row
from engines.core.text import significant

if TYPE_CHECKING:
    from bench.report.render.style import Drawn

HOW_TO_READ: Final = (
    "Systems of one setting answer the same question; those that change the model (pruned, sparse, distilled, another "
    "attention, early exit) do not give the same text, and what that costs is in the column of quality where it was "
    "measured. A speculative row holds at the acceptance rate that it names."
)


def field_report(rows: Sequence[Row], title: str) -> Document:
    """Every setting of the sweeps ``field`` and ``field-measured``.

    Raises:
        ShardbenchError: there is no row of either.
    """
    field = of_field(list(rows))
    mine = [row for row in field if answered(row) and row.cost_chip_s_per_token is not None]
    if not mine:
        raise ShardbenchError("field: the store holds none of its rows; run shardbench run +sweep=field first")
    names = sorted(dict.fromkeys(setting_of(row) for row in mine), key=lambda each: ("cpu" in each, "tpu" not in each))
    settings = {name: [row for row in mine if setting_of(row) == name] for name in names}
    sections = [Section(title="Evidence", text=HOW_TO_READ, tables=[evidence_table(mine)])]
    found: list[Finding] = []
    for setting, own in settings.items():
        found += _finding(setting, own)
        table = systems_table(file_name(setting), setting, {setting: own})
        sections.append(Section(title=setting, tables=[table], draw=_drawn({setting: own})))
    unanswered = [row for row in field if row.status != "ok"]
    if unanswered:
        sections.append(Section(title="What has no time", tables=[without_time(unanswered)]))
    first = {name: own for name, own in settings.items() if "cpu" not in name} or settings
    table = systems_table("field", "Every system", first)
    front = Front(findings=found, draw=_drawn(first), table=table, text=HOW_TO_READ)
    return Document(name="field", title=title, findings=found, sections=sections, front=front)


def _drawn(settings: dict[str, list[Row]]) -> "Callable[[], Sequence[Drawn]]":
    return lambda: [field_figure(setting, rows) for setting, rows in settings.items()]


def _finding(setting: str, rows: Sequence[Row]) -> list[Finding]:
    """Which system is fastest, and which cheapest within 50 ms, of those that leave the model as it is."""
    whole = [row for row in same_text(rows) if row.source in ("predicted", "measured")]
    within = [row for row in whole if (time_of(row) or 0) <= STEP_LIMIT_S]
    if not within:
        return []
    fastest, cheapest = fastest_and_cheapest(within)
    sentence = (
        f"{setting}: of the systems that leave the model as it is, {system_of(fastest)} is fastest, "
        f"{significant(1e3 * (time_of(fastest) or 0), 3)} ms at batch {fastest.batch_size}, and {system_of(cheapest)} "
        f"cheapest within 50 ms, {significant(1e3 * (cheapest.cost_chip_s_per_token or 0), 3)} chip-ms a token"
        f"{_usd(cheapest)} at batch {cheapest.batch_size}."
    )
    sources = tuple(sorted({row.source for row in (fastest, cheapest)}))
    return [Finding(topic="The field", sentence=sentence, sources=sources)]


def _usd(row: Row) -> str:
    usd = row.cost_usd_per_mtok
    return "" if usd is None else f" ({significant(usd, 3)} USD a million)"
