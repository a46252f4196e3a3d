"""The report of the studies: for each sweep recipe of compiled points a figure, a table and what was found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bench.report.main.findings import Finding
from bench.report.render.document import Document, Section
from bench.report.studies import figures
from bench.report.studies import findings as found
from bench.report.studies.figure_roofline import bounds_and_rooflines
from bench.report.studies.gpus import bounds_beside_published
from bench.report.studies.rows import StudyRows, find_rows, parts_of, points_of
from bench.report.studies.traces import Places, Traces, traces_of
from bench.rows.frontier import time_of
from bench.rows.labels import model_label
from bench.rows.table import Column, Table
from engines.core.errors import ShardbenchError
from engines.core.row import Row

if TYPE_CHECKING:
    from bench.report.render.style import Drawn

ABOUT: Final = (
    "**compiled** is the schedule that the chip's own compiler made for chips that are not there, walked instruction "
    "by instruction (a GPU's at its roofline, which is a bound); **predicted** is a closed form and **published** what "
    "others printed, where either has the same point. Sentences are computed from compiled rows, and from published "
    "ones where they say so. Times are of one decode step (the mean over the phase) or of a whole prefill. *Bound by* "
    "names the largest of three parts: **memory**, the HBM traffic at full bandwidth (it runs within the computation); "
    "**compute**, computation beyond that, be it arithmetic or less than full bandwidth; **exposed communication**, "
    "collectives beside which nothing is computed."
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
}
"""Keys of which a study's table shows those that vary in it, with their headings."""
Draw = Callable[[str, str, Sequence[Row]], "Drawn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One recipe. ``variants`` are further words with which it runs too; ``paper`` what Pope et al. 2022 say.

    ``traced``: its rows have traces, of which the report shows a turn of the loop over layers. ``published_s`` tells
    what was published of a row's question, for two columns of the table.
    """

    recipe: str
    title: str
    paper: str
    draw: Draw
    find: Callable[[Sequence[Row]], found.Told | None]
    variants: Sequence[Sequence[str]] = ((),)
    has_mfu: bool = True
    traced: bool = False
    published_s: Callable[[Row], float | None] | None = None

    @property
    def command(self) -> str:
        """What makes its rows."""
        words = (" ".join(["shardbench run", f"+sweep={self.recipe}", *each]) for each in self.variants)
        return " && ".join(words)


def _model(row: Row) -> str:
    return model_label(row.model.partition("+")[0])


def _workload(row: Row) -> str:
    return f"{row.phase}, batch {row.batch_size}"


def _attention(row: Row) -> str:
    heads = "multihead" if "multihead" in row.model else "multiquery"
    return f"{heads}, by {row.attn_sharding}"


def _block(row: Row) -> str:
    return "serial" if "serial" in row.model else "parallel"


def _variant(row: Row) -> str:
    return "GSPMD" if row.partitioner == "gspmd" else str(row.collectives)


def _timed_workload(row: Row) -> str:
    return f"{row.phase}, batch\n{row.batch_size}, {row.weight_dtype}"


def _length(row: Row) -> str:
    if row.phase == "prefill":
        return f"{row.input_len} tokens"
    return "one step" if row.output_len == 1 else f"{row.output_len} steps"


STUDIES: Final = (
    Study(
        recipe="study-targets",
        title="Against the paper's own figures",
        paper="28.5 ms a decode step at batch 64 (int8), 93.75 ms at batch 512, 85.2 s for the prefill at batch 512",
        find=found.against_published,
        traced=True,
        draw=partial(figures.bars_over, panel=_timed_workload, bar=_length, published_s=found.published_s),
    ),
    Study(
        recipe="study-1d-2d",
        title="1D against 2D over chips",
        paper="in figure 6, 2D is the faster from 64 chips on, and 1D hardly gains from more chips",
        find=found.layouts_over_chips,
        draw=partial(
            figures.lines_over,
            panel=_model,
            line=lambda row: str(row.ffn_layout),
            x=lambda row: row.num_chips,
            x_label="chips",
            mfu=False,
        ),
    ),
    Study(
        recipe="study-prefill",
        title="Prefill over tokens",
        paper="in figure 7, a weight-gathered layout reaches 76% MFU at 1M tokens; ws_2d wins at small batches",
        find=found.prefill_layouts,
        draw=partial(
            figures.lines_over,
            panel=_model,
            line=lambda row: str(row.ffn_layout),
            x=lambda row: row.batch_size * row.input_len,
            x_label="batch (tokens)",
            mfu=True,
        ),
    ),
    Study(
        recipe="study-attention",
        title="Attention over context",
        paper=(
            "in figure 8, multiquery attention cut over the batch goes on to 32768 tokens, and attention is 8–31% of "
            "its step at 8192–32768; cut over heads, or multihead, it grows faster or does not fit"
        ),
        find=partial(found.attention_over_context, line=_attention),
        variants=((), ("model=palm-540b-multihead",)),
        has_mfu=False,  # its 8 layers are not the model of which MFU counts the parameters
        draw=partial(
            figures.lines_over,
            panel=lambda row: "8 layers of PaLM 540B",
            line=_attention,
            x=lambda row: row.input_len + row.output_len,
            x_label="context (tokens)",
            mfu=False,
        ),
    ),
    Study(
        recipe="study-block",
        title="Serial against parallel block",
        paper="a serial block costs 14% more per decode step at batch 512",
        find=found.serial_over_parallel,
        draw=partial(figures.bars_over, panel=_workload, bar=_block),
    ),
    Study(
        recipe="study-collectives",
        title="Overlapped, plain and compiler-partitioned collectives",
        paper="looped is about 1.4 times as fast as GSPMD, and some gathered layouts do not fit without it",
        find=partial(found.overlapped_plain_gspmd, panel=_workload),
        draw=partial(figures.bars_over, panel=_workload, bar=_variant),
    ),
    Study(
        recipe="study-weights",
        title="int8 against bfloat16 weights",
        paper="28.5 ms a decode step with int8 and 36.9 ms with bfloat16 at batch 64",
        find=found.int8_over_bfloat16,
        draw=partial(
            figures.lines_over,
            panel=lambda row: row.phase,
            line=lambda row: row.weight_dtype,
            x=lambda row: row.batch_size,
            x_label="batch",
            mfu=False,
        ),
    ),
    Study(
        recipe="study-generations",
        title="64 chips of every generation",
        paper="TPU v4 alone",
        find=found.generations,
        draw=partial(figures.bars_over, panel=_model, bar=lambda row: row.hw),
    ),
    Study(
        recipe="study-gpu",
        title="GPUs at their rooflines",
        paper="it sets its TPUs beside what FasterTransformer published of A100s, as the tables here do",
        find=bounds_beside_published,
        published_s=found.published_s,
        draw=partial(bounds_and_rooflines, published_s=found.published_s),
    ),
)


def studies_report(rows: Sequence[Row], title: str, places: Places) -> Document:
    """A section a study; of one without rows, only the command that makes them.

    Raises:
        ShardbenchError: the store holds rows of none.
    """
    stored = [(study, find_rows(rows, points_of(study.recipe, study.variants))) for study in STUDIES]
    if not any(each.compiled for _, each in stored):
        recipes = ", ".join(study.recipe for study in STUDIES)
        raise ShardbenchError(
            f"studies: the store holds none of their compiled rows; run {STUDIES[0].command} first (studies: {recipes})"
        )
    links = found.links_told([row for _, each in stored for row in each.compiled])
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
        return Finding(study.title, ("compiled",), f"no rows are stored; make them with {study.command}")
    told = study.find(stored.compiled)
    if told is None:
        return Finding(study.title, ("compiled",), f"too few rows are stored; {study.command} makes the rest")
    sentence, numbers = told
    sentence = f"{sentence[0].upper()}{sentence[1:]} The paper: {study.paper}."
    return Finding(study.title, ("compiled",), sentence, numbers)


def _section(study: Study, stored: StudyRows, places: Places) -> Section:
    if not stored.compiled:
        return Section(title=study.title, text=f"No rows are stored; make them with `{study.command}`.")
    text = f"Recipe: `{study.command}`."
    if stored.missing:
        text += f" {stored.missing} of its points have no compiled row yet."
    traces = traces_of(stored.compiled, places, study.recipe) if study.traced else Traces()
    caption = f"{study.title}."
    drawable = [row for row in stored.rows if row.status in ("ok", "oom")]
    name = study.recipe.replace("-", "_")
    return Section(
        title=study.title,
        text="\n\n".join(part for part in (text, traces.text) if part),
        tables=[_table(study, stored)],
        draw=(lambda: [study.draw(name, caption, drawable), *traces.draw()]) if drawable else None,
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
            Column("share", "of published (%)", 100.0, ".0f"),
        ]
    return Table(
        name=study.recipe.replace("-", "_"),
        caption=f"{study.title}: the numbers",
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
    beside = study.published_s(row) if study.published_s is not None and row.source == "compiled" else None
    if beside is not None:
        cells |= {"published_s": beside, "share": (time_of(row) or 0) / beside}
    return cells


def _refusals(rows: Sequence[Row]) -> str:
    """What the first row that has no time says, for each status."""
    first = {row.status: row for row in reversed(rows) if row.status != "ok"}
    return " ".join(f"{status}: {row.error}" for status, row in sorted(first.items()) if row.error)
