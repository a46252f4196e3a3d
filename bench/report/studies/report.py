"""The report of the studies: for each a finding, a figure and a small table; all rows in a file of its own."""

from collections.abc import Sequence
from typing import Any, Final

from bench.report.main.findings import Finding
from bench.report.render.document import Document, Section
from bench.report.studies.findings import link_constants
from bench.report.studies.registry import STUDIES, Study
from bench.report.studies.rows import StudyRows, find_rows, parts_of, points_of
from bench.report.studies.traces import Places, Traces, traces_of
from bench.rows.error_stats import relative_error
from bench.rows.escape import markdown
from bench.rows.frontier import time_of
from bench.rows.table import Column, Table
from engines.core.errors import ShardbenchError
from engines.core.row import Row

ABOUT: Final = (
    "**compiled** is the schedule that the chip's own compiler made, timed instruction by instruction by a model of "
    "the chip (on a GPU its roofline, which is a lower bound); **predicted** is a closed form; **published** was "
    "printed by others. Findings use compiled rows, and published ones where they say so. Times are of one decode step "
    "(mean over the phase), of a whole prefill or of a whole generation. *Bound by* is the largest of three parts: "
    "**memory**, HBM traffic at full bandwidth (it overlaps computation); **compute**, the rest of the computation; "
    "**exposed communication**, collectives that overlap no computation."
)
IDENTITY: Final = {
    "model": "model",
    "hw": "chip",
    "num_chips": "chips",
    "phase": "phase",
    "batch_size": "batch",
    "input_len": "tokens in",
    "ffn_layout": "layout",
    "attn_sharding": "attention by",
    "collectives": "collectives",
    "partitioner": "partitioner",
    "weight_dtype": "weights",
    "speculative": "speculative",
    "draft_len": "proposed",
    "acceptance_rate": "accepted",
}
"""Keys with their headings; a study's table shows those that vary in it."""
MOST_WHOLE: Final = 12
"""Rows up to which the table of all rows is short enough to be the one in the text."""


def studies_report(rows: Sequence[Row], title: str, places: Places) -> Document:
    """A section for each study; without rows, only the command that makes them.

    Raises:
        ShardbenchError: the store holds no compiled row of any study.
    """
    stored = [(study, find_rows(rows, points_of(study.recipe, study.variants), study.recipe)) for study in STUDIES]
    if not any(each.compiled for _, each in stored):
        recipes = ", ".join(study.recipe for study in STUDIES)
        raise ShardbenchError(
            f"studies: the store holds none of their compiled rows; run {STUDIES[0].command} first (studies: {recipes})"
        )
    links = link_constants([row for _, each in stored for row in each.compiled])
    sections = [Section(title="How to read it", text="\n\n".join(part for part in (ABOUT, links) if part))]
    sections += [_section(study, each, places) for study, each in stored]
    return Document(
        name="studies",
        title=title,
        findings=[_finding(study, each) for study, each in stored],
        sections=sections,
    )


def _finding(study: Study, stored: StudyRows) -> Finding:
    if not stored.compiled:
        return Finding(study.title, ("compiled",), f"No rows are stored; make them with {study.command}.")
    found = study.find(stored.compiled)
    if found is None:
        return Finding(study.title, ("compiled",), f"Too few rows are stored; {study.command} makes the others.")
    sentence, numbers = found
    return Finding(study.title, ("compiled",), sentence, numbers)


def _section(study: Study, stored: StudyRows, places: Places) -> Section:
    if not stored.compiled:
        return Section(title=study.title, text=f"No rows are stored; make them with `{study.command}`.")
    text = f"{markdown(_finding(study, stored).sentence)} The paper: {study.paper}. Recipe: `{study.command}`."
    if stored.missing:
        text += f" {stored.missing} of its points have no compiled row yet."
    notes = "" if study.notes is None else markdown(study.notes(stored.rows))
    traces = traces_of(stored.compiled, places, study.recipe) if study.traced else Traces()
    drawable = [row for row in stored.rows if row.status in ("ok", "oom")]
    name = study.recipe.replace("-", "_")
    whole, small = _table(study, stored), study.shape.table(f"{name}_summary", stored.rows)
    if small is None or len(whole.rows) <= MOST_WHOLE:
        tables, linked = [whole], []
    else:
        tables, linked = [small], [whole]
    return Section(
        title=study.title,
        text="\n\n".join(part for part in (text, notes, traces.text) if part),
        tables=[*tables, *([traces.table] if traces.table else [])],
        linked=linked,
        draw=(lambda: [study.shape.draw(name, f"{study.title}.", drawable), *traces.draw()]) if drawable else None,
    )


def _table(study: Study, stored: StudyRows) -> Table:
    rows = stored.rows
    varying = [key for key in IDENTITY if len({getattr(row, key) for row in rows}) > 1]
    short = max((time_of(row) or 0 for row in rows), default=0) < 1
    scale, unit = (1e3, "ms") if short else (1.0, "s")
    columns = [Column(key, IDENTITY[key]) for key in varying]
    columns += [
        *(Column("source"), Column("status"), Column("time_s", f"time ({unit})", scale, ".4g")),
        *([Column("mfu", "MFU (%)", 100.0, ".1f")] if study.has_mfu else []),
        Column("memory_s", f"memory ({unit})", scale, ".3g"),
        Column("compute_s", f"compute ({unit})", scale, ".3g"),
        Column("exposed_s", f"exposed ({unit})", scale, ".3g"),
        Column("bound_by", "bound by"),
    ]
    if study.published_s is not None:
        columns += [
            Column("published_s", f"published ({unit})", scale, ".4g"),
            Column("relative_error", "error (%)", 100.0, "+.1f"),
        ]
    return Table(
        name=study.recipe.replace("-", "_"),
        caption=f"{study.title}: all rows",
        columns=columns,
        rows=[_cells(study, row, varying) for row in rows],
        note=_refusals(stored.compiled),
    )


def _cells(study: Study, row: Row, varying: Sequence[str]) -> dict[str, Any]:
    parts = parts_of(row)
    cells: dict[str, Any] = {key: getattr(row, key) for key in varying}
    cells |= {"source": row.source, "status": row.status, "time_s": time_of(row), "mfu": row.mfu}
    if parts is not None:
        cells |= {**parts._asdict(), "bound_by": parts.bound_by}
    published = study.published_s(row) if study.published_s is not None and row.source == "compiled" else None
    if published is not None:
        cells |= {"published_s": published, "relative_error": relative_error(time_of(row), published)}
    return cells


def _refusals(rows: Sequence[Row]) -> str:
    """The error of the first row without a time, for each status."""
    first = {row.status: row for row in reversed(rows) if row.status != "ok"}
    return " ".join(f"{status}: {row.error}" for status, row in sorted(first.items()) if row.error)
