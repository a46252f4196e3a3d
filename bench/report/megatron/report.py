"""Megatron beside FasterTransformer, published and predicted; what sequence parallelism saves; pipelines measured."""

from collections.abc import Sequence
from typing import Any, Final

from bench.report.main.findings import Finding
from bench.report.megatron.figure import over_batch
from bench.report.render.document import Document, Front, Section
from bench.rows.labels import answered, model_label, parallelism
from bench.rows.table import Column, Table
from engines.core.errors import ShardbenchError
from engines.core.row import Row
from engines.core.text import significant

SWEEP: Final = "megatron"
COMMAND: Final = f"shardbench run +sweep={SWEEP}"
NAMES: Final = {"megatron": "Megatron", "fastertransformer": "FasterTransformer"}
TEXT: Final = (
    "Both programs ran on the same GPUs with tensor parallelism of 8, as FasterTransformer's guide published them. "
    "Constants of runtime=megatron were fitted to these very rows, so that its predictions are no check of the closed "
    "forms; those of runtime=fastertransformer rest on many more tables."
)


def megatron_report(rows: Sequence[Row], title: str) -> Document:
    """Published beside predicted times, sequence parallelism, and measured pipelines.

    Raises:
        ShardbenchError: the store holds no row of the sweep.
    """
    mine = [row for row in rows if row.sweep == SWEEP]
    if not mine:
        raise ShardbenchError(f"megatron: the store holds none of its rows; run {COMMAND} first")
    compared = [row for row in mine if row.runtime in NAMES and (row.pipeline_parallel or 1) == 1 and answered(row)]
    measured = [row for row in mine if row.source == "measured"]
    sections, found = [], []
    table = None
    if compared:
        table = beside(compared)
        found += _published(compared)
        sections.append(
            Section(
                title="Published and predicted", text=TEXT, tables=[table], draw=lambda: over_batch(compared, NAMES)
            )
        )
    saved = sequence_parallel(mine)
    if saved.rows:
        text = (
            "Sequence parallelism (Korthikanti et al. 2022) gives each rank its tokens of norms and residual. It sends "
            "the same bytes in two collectives for one, and saves memory traffic of vectors."
        )
        sections.append(Section(title="Sequence parallelism", text=text, tables=[saved]))
    if measured:
        found += _measured(measured)
        text = (
            "Two stages of two tensor-parallel ranks on CPU cores, micro-batches following each other through the "
            "stages. It shows that the partitioning runs in both engines, and not the speed of GPUs."
        )
        sections.append(Section(title="Measured pipelines", text=text, tables=[pipelines(measured)]))
    front = None
    if table is not None:
        front = Front(findings=found, draw=lambda: over_batch(compared, NAMES), table=table, text=TEXT)
    return Document(name="megatron", title=title, findings=found, sections=sections, front=front)


def beside(rows: Sequence[Row]) -> Table:
    """One line a model, workload and batch: each program's published and predicted latency."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in sorted(rows, key=_question):
        line = lines.setdefault(
            _question(row),
            {
                "model": model_label(row.model),
                "chips": f"{row.num_chips} {row.hw}",
                "lengths": f"{row.input_len} + {row.output_len}",
                "batch": row.batch_size,
            },
        )
        line[f"{row.runtime} {row.source}"] = row.latency_s
    shown = [f"{runtime} {source}" for runtime in NAMES for source in ("published", "predicted")]
    for line in lines.values():
        megatron, other = (line.get(f"{runtime} published") for runtime in NAMES)
        line["ratio"] = megatron / other if megatron and other else None
    columns = [
        *(Column("model"), Column("chips"), Column("lengths", "in + out"), Column("batch", "batch")),
        *(Column(key, _heading(key), 1.0, ".3f") for key in shown),
        Column("ratio", "Megatron / FasterTransformer, published", 1.0, ".2f"),
    ]
    caption = "Seconds of a whole generation, published and predicted"
    return Table(name="megatron", caption=caption, columns=columns, rows=[*lines.values()])


def sequence_parallel(rows: Sequence[Row]) -> Table:
    """Predicted latency with and without splitting the tokens of norms, of points that differ in that alone."""
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        if row.source == "predicted" and answered(row):
            key = (row.runtime, row.tensor_parallel, row.pipeline_parallel, *_question(row))
            found.setdefault(key, {})[row.sequence_parallel or "none"] = row
    lines = [
        {
            "model": model_label(each["none"].model),
            "chips": f"{each['none'].num_chips} {each['none'].hw}",
            "split": parallelism(each["none"].tensor_parallel or 1, each["none"].pipeline_parallel),
            "runtime": each["none"].runtime,
            "batch": each["none"].batch_size,
            "none": each["none"].latency_s,
            "norms": each["norms"].latency_s,
            "saved": 1 - (each["norms"].latency_s or 0) / (each["none"].latency_s or 1),
        }
        for each in found.values()
        if len(each) == 2
    ]
    columns = [
        *(Column("model"), Column("chips"), Column("split"), Column("runtime"), Column("batch", "batch")),
        *(Column("none", "without (s)", 1.0, ".3f"), Column("norms", "with (s)", 1.0, ".3f")),
        Column("saved", "saved (%)", 100.0, ".1f"),
    ]
    caption = "Sequence parallelism, predicted"
    return Table(name="megatron_sequence", caption=caption, columns=columns, rows=lines)


def pipelines(rows: Sequence[Row]) -> Table:
    """One line a measured point."""
    keys = ("model", "engine", "phase", "batch_size", "micro_batches", "latency_s", "step_time_s", "valid")
    columns = [Column("split"), *map(Column, keys), Column("error", "error of logits", 1.0, ".1e")]
    lines = [
        {
            "split": parallelism(row.tensor_parallel or 1, row.pipeline_parallel),
            **{key: getattr(row, key) for key in keys},
            "error": row.max_relative_error,
        }
        for row in rows
    ]
    return Table(name="megatron_measured", caption="Measured pipelines", columns=columns, rows=lines)


def _question(row: Row) -> tuple[Any, ...]:
    return (row.model, row.num_chips, row.hw, row.input_len, row.output_len, row.batch_size)


def _heading(key: str) -> str:
    runtime, source = key.split(" ")
    return f"{NAMES[runtime]}, {source} (s)"


def _published(rows: Sequence[Row]) -> list[Finding]:
    """How much longer Megatron takes at the least and the largest batch, as published."""
    ratios = {(line["lengths"], line["batch"]): line["ratio"] for line in beside(rows).rows if line["ratio"]}
    if not ratios:
        return []
    (least, smallest), (most, largest) = (pick((ratio, key) for key, ratio in ratios.items()) for pick in (min, max))
    sentence = (
        f"As published, Megatron takes {significant(least, 3)} times as long as FasterTransformer at batch "
        f"{smallest[1]} ({smallest[0]} tokens) and up to {significant(most, 3)} times at batch {largest[1]} "
        f"({largest[0]} tokens)."
    )
    return [Finding("Megatron", ("published",), sentence, {"least": least, "most": most})]


def _measured(rows: Sequence[Row]) -> list[Finding]:
    valid = [row for row in rows if answered(row)]
    if not valid:
        return []
    engines = sorted({row.engine for row in valid})
    worst = max(row.max_relative_error or 0.0 for row in valid)
    sentence = (
        f"Pipelines of {' and '.join(engines)} ran {len(valid)} points; their logits differ from the reference by at "
        f"most {worst:.1e}."
    )
    return [Finding("Pipelines", ("measured",), sentence, {"worst_relative_error": worst})]
