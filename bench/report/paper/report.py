"""The report of Pope et al. 2022: its tables and figures with all kinds of evidence side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from bench.report.claims.contenders import curves
from bench.report.main.figure_mfu import mfu_over_latency
from bench.report.main.findings import Finding
from bench.report.main.provenance import calibration_table
from bench.report.paper.answers import Asked
from bench.report.paper.closed_form_tables import closed_forms
from bench.report.paper.closed_forms import ContextLimit
from bench.report.paper.findings import paper_findings
from bench.report.paper.items import ITEMS, TABLES, Item, asked_of, drawable
from bench.report.paper.side_by_side import rows_of, side_by_side
from bench.report.render.document import Document, Front, Section
from bench.report.studies.findings import link_constants
from bench.rows.counted import counted
from bench.rows.escape import markdown
from bench.rows.pairing import pair_up
from engines.core.row import Row

if TYPE_CHECKING:
    from bench.report.render.style import Drawn

MOST_FINDINGS: Final = 6
FIRST: Final = "table2"
"""The table of the first page; the figure is Figure 9."""
ABOUT: Final = (
    "**published** is what others printed; **predicted** is a closed form for the XLA of 2022, or for "
    "FasterTransformer; **compiled** is the schedule of today's XLA for TPU, timed by a model of the chip; "
    "**measured** was timed by shardbench. An error is (value − published) / published. Of several rows of a kind the "
    "one that left most to its engine is shown, of these the fastest. The constants of the closed forms were fitted to "
    "published rows, those of this paper among them."
)

FIGURE_9: Final = f"Rows of Figure 9: those of Table D.3. Command: `shardbench run +sweep={TABLES}`."


def paper_report(title: str, rows: Sequence[Row] = ()) -> tuple[Document, list[ContextLimit]]:
    """The document, and the entries of Table 1, each of which says whether it agrees with the printed figure.

    ``rows`` are those of the stores. What they lack of published and predicted rows is looked up and predicted anew.
    """
    forms = closed_forms()
    asked = asked_of(ITEMS, rows)
    timed = [row for item in ITEMS if item.recipe == TABLES for row in _all(asked[item.name])]
    top, *others = (_section(item, asked[item.name]) for item in ITEMS)
    first, *closed = forms.sections
    tables = [each for each in others if each.title.startswith("Table")]
    figures = [each for each in others if each not in tables]
    figures.insert(1, closed[0])
    sections = [
        Section(title="How to read it", text=_how_to_read(asked)),
        *(first, *tables, *figures),
        Section(title="Figure 9: MFU over latency", text=f"It is on the first page. {FIGURE_9}"),
        *closed[1:],
        Section(title="Provenance", tables=[each for each in [calibration_table(timed)] if each is not None]),
    ]
    found = [*_first(forms.findings, "Table 1"), *paper_findings(asked)]
    front = Front(
        findings=found[:MOST_FINDINGS],
        draw=lambda: [_drawn_figure_9(timed)],
        table=top.tables[0],
        text=f"{top.text}\n\n{FIGURE_9}",
    )
    document = Document(
        name="paper",
        title=title,
        findings=[*found, *(each for each in forms.findings if each not in found)],
        sections=sections,
        front=front,
    )
    return document, list(forms.entries)


def _all(asked: Asked) -> list[Row]:
    return [row for each in asked.answers for row in each.rows.values()]


def _section(item: Item, asked: Asked) -> Section:
    figure = item.shown[0].figure
    table = side_by_side(item.name, item.title, asked.answers, item.shown, also=item.also)
    rows = drawable(asked, figure)
    caption = f"{item.title}. {rows_of(asked.answers)}, named in {item.name}.csv; {item.commands[0]}."
    draw = item.draw
    return Section(
        title=item.title,
        text=" ".join((item.about, *_sources(item, asked))),
        tables=[table],
        draw=None if draw is None or not rows else lambda: [draw(rows, caption)],
    )


def _sources(item: Item, asked: Asked) -> list[str]:
    """Which rows a table or figure has, and which commands make them."""
    sentences = [f"Rows: {rows_of(asked.answers)}; each is named by its `point_id` in `tables/{item.name}.csv`."]
    if asked.anew:
        rows = counted(asked.anew, "row")
        sentences.append(
            f"No store had {rows} of `{item.recipe}`: published ones were looked up, others predicted anew."
        )
    sentences.append(f"Commands: {', '.join(f'`{markdown(command)}`' for command in item.commands)}.")
    return sentences


def _drawn_figure_9(timed: Sequence[Row]) -> "Drawn":
    drawn = mfu_over_latency(curves(timed, pair_up(timed)))
    assert drawn is not None  # published rows are always there
    return drawn


def _how_to_read(asked: dict[str, Asked]) -> str:
    compiled = [row for each in asked.values() for row in each.rows("compiled")]
    return "\n\n".join(part for part in (ABOUT, markdown(link_constants(compiled))) if part)


def _first(found: Sequence[Finding], topic: str) -> list[Finding]:
    return [each for each in found if each.topic == topic]
