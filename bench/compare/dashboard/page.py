"""The page: regressions, every point over time, the newest rows, and where they were made."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from bench.compare.dashboard.chart import chart, mark_of
from bench.compare.dashboard.history import Series, find_earlier_steps, histories
from bench.compare.nights.judge import Finding, Verdict
from bench.compare.nights.summary import headline
from bench.compare.verdicts import Change, Rules, label
from bench.report.main.provenance import environment_table
from bench.rows.counted import counted
from bench.rows.labels import SOURCES
from bench.rows.metrics import METRICS
from bench.rows.table import Table
from bench.run.progress import seconds
from engines.core.row import Row

MOST_CHARTS: Final = 60
MOST_ROWS: Final = 100
"""Rows shown of each kind of evidence; a page of every row of a large store would not open."""
STEP_COLUMNS: Final = ("verdict", "point", "before", "now", "new/old", "interval", "p", "when", "note")
FINDING_COLUMNS: Final = ("verdict", "point", "now", "new/old", "since", "note", "what changed")
ROW_COLUMNS: Final = ("point", "latency", "interval", "step", "MFU", "when", "note")
FIGURES: Final = frozenset({"before", "now", "new/old", "interval", "p", "latency", "step", "MFU", "rows"})


def page(rows: Sequence[Row], title: str, rules: Rules, verdict: Verdict | None = None) -> str:
    """The page as HTML; ``rows`` come oldest first. It loads nothing from anywhere.

    ``verdict`` is that of the last night, where the rows are those of nights; else each point's last two rows are
    compared.

    Raises:
        ShardbenchError: scipy is needed (a question was measured twice) and not installed.
    """
    series = histories(rows, rules)
    charted = [each for each in series if len(each.rows) > 1 and any(row.latency_s for row in each.rows)]
    find_earlier_steps(charted[:MOST_CHARTS], rules)
    newest = [each.newest for each in series]
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    span = f"from {rows[0].created_at[:16]} to {rows[-1].created_at[:16]} UTC"
    return template.substitute(
        title=escape(title),
        subtitle=escape(f"{counted(len(rows), 'row')}, {counted(len(series), 'point')}, {span}"),
        counts=_counts(series, verdict),
        regressions=_regressions(series) if verdict is None else _night(verdict),
        history=_history(charted),
        newest=_newest(newest),
        environment=_report_table(environment_table(newest)),
    )


def _counts(series: Sequence[Series], verdict: Verdict | None) -> str:
    if verdict is None:
        worse, compared = sum(each.regressed for each in series), sum(len(each.rows) > 1 for each in series)
    else:
        worse, compared = len(verdict.worse), verdict.judged
    told = f"worse than before, of {compared} compared"
    cells = [(str(worse), told, "worse" if worse else "better") if compared else ("none", "compared", "")]
    for source in SOURCES:
        found = [each.newest for each in series if each.newest.source == source]
        valid = sum(row.valid for row in found)
        if found:
            cells.append((str(len(found)), f"{source}, {valid} of them valid", ""))
    return "".join(f'<li><b class="{kind}">{number}</b>{escape(text)}</li>' for number, text, kind in cells)


def _night(verdict: Verdict) -> str:
    parts = [f"<p>Night of {escape(verdict.day)}: {escape(headline(verdict))}.</p>"]
    if verdict.findings:
        parts.append(_table(FINDING_COLUMNS, [_finding_cells(each) for each in verdict.findings[:MOST_ROWS]]))
    if len(verdict.findings) > MOST_ROWS:
        parts.append(f"<p class=quiet>{len(verdict.findings) - MOST_ROWS} more; verdict.json has all.</p>")
    for machine, size in sorted(verdict.smallest.items()):
        words = f"{' '.join(filter(None, machine))}: two nights show steps of {size:.1%} and more"
        parts.append(f"<p class=quiet>{escape(words)}, with a probability of 95%.</p>")
    if verdict.damaged:
        lines = "".join(f"<li>{escape(line)}</li>" for line in verdict.damaged[:MOST_ROWS])
        parts.append(
            f"<details><summary>{len(verdict.damaged)} damaged rows, left out</summary><ul>{lines}</ul></details>"
        )
    return "".join(parts)


def _finding_cells(each: Finding) -> list[str]:
    ratio = "" if each.ratio is None else f"{each.ratio:.3f}"
    point = f"{each.history.label} ({each.history.last.row.source})"
    return [
        each.kind,
        point,
        seconds(each.history.last.time_s),
        ratio,
        each.since,
        each.reason,
        "; ".join(each.changed),
    ]


def _regressions(series: Sequence[Series]) -> str:
    compared = sum(len(each.rows) > 1 for each in series)
    worse = [each.latest_step for each in series if each.regressed and each.latest_step is not None]
    parts = []
    if worse:
        parts.append(_table(STEP_COLUMNS, [_step_cells(change) for change in worse]))
    elif compared:
        parts.append(f"<p>None of {compared} points with an earlier row is slower or broken.</p>")
    else:
        parts.append("<p>No point has been answered twice yet, so there is nothing to compare.</p>")
    earlier = sorted(
        (
            change
            for each in series
            for change in each.steps.values()
            if not (each.regressed and change is each.latest_step)
        ),
        key=lambda change: change.new.created_at,
        reverse=True,
    )
    if earlier:
        table = _table(STEP_COLUMNS, [_step_cells(change) for change in earlier[:MOST_ROWS]])
        parts.append(f"<details><summary>{len(earlier)} other steps, up and down</summary>{table}</details>")
    return "".join(parts)


def _history(charted: Sequence[Series]) -> str:
    if not charted:
        return "<p>A chart appears once a point has been answered on two occasions.</p>"
    figures = []
    for each in charted[:MOST_CHARTS]:
        kind = ' class="regressed"' if each.regressed else ""
        caption = f"{escape(each.label)} <span class=quiet>({escape(each.newest.source)})</span>"
        if each.latest_step is not None:
            caption += f" <b class={mark_of(each.latest_step)}>{escape(each.latest_step.verdict)}</b>"
        figures.append(f"<figure{kind}><figcaption>{caption}</figcaption>{chart(each)}</figure>")
    left = len(charted) - MOST_CHARTS
    more = f"<p class=quiet>{left} more points have a history; compare names every change.</p>" if left > 0 else ""
    note = "Latency, with the interval of its median; a large dot is a step, a hollow one is an invalid row."
    return f'<p class=quiet>{note}</p><div class="charts">{"".join(figures)}</div>{more}'


def _newest(newest: Sequence[Row]) -> str:
    parts = []
    for source in SOURCES:
        found = sorted((row for row in newest if row.source == source), key=lambda row: row.created_at, reverse=True)
        if not found:
            continue
        parts.append(f"<h3>{source}</h3>")
        parts.append(_table(ROW_COLUMNS, [_row_cells(row) for row in found[:MOST_ROWS]]))
        if len(found) > MOST_ROWS:
            parts.append(f"<p class=quiet>{len(found) - MOST_ROWS} more; shardbench results export writes all.</p>")
    return "".join(parts)


def _step_cells(change: Change) -> list[str]:
    ratio = change.ratio
    return [
        change.verdict,
        f"{change.label} ({change.new.source})",
        seconds(change.old.latency_s),
        seconds(change.new.latency_s),
        "" if ratio is None else f"{ratio.value:.3f}",
        "" if ratio is None or ratio.ci_low == ratio.ci_high else f"{ratio.ci_low:.3f} to {ratio.ci_high:.3f}",
        "" if change.p_value is None else f"{change.p_value:.1g}",
        change.new.created_at[:16],
        change.reason,
    ]


def _row_cells(row: Row) -> list[str]:
    interval = "" if row.ci_low is None else f"{seconds(row.ci_low)} to {seconds(row.ci_high)}"
    note = (
        f"{row.status}: {row.error}" if row.status != "ok" else "" if row.valid else f"not valid: {row.invalid_reason}"
    )
    mfu = METRICS["mfu"].show(row.mfu)
    cells = (seconds(row.latency_s), interval, seconds(row.step_time_s), f"{mfu}%" if mfu else "")
    return [label(row), *cells, row.created_at[:16], note]


def _report_table(table: Table) -> str:
    rows = [[column.show(row.get(column.key)) for column in table.columns] for row in table.printed]
    return _table([column.title for column in table.columns], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells as a table; narrow screens show each row as a list, for which a cell carries its column's name."""

    def kind(head: str) -> str:
        return ' class="figure"' if head in FIGURES else ""

    def cell(head: str, text: str) -> str:
        return f'<td{kind(head)} data-name="{escape(head, quote=True)}">{escape(text)}</td>'

    lines = ["<tr>" + "".join(map(cell, heads, row)) + "</tr>" for row in rows]
    titles = "".join(f'<th scope="col"{kind(head)}>{escape(head)}</th>' for head in heads)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
