"""The comparison of the paper: 64-way TPU v4 against FasterTransformer on A100, for its three pairs of lengths."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.rows.labels import SOURCES, answered, parallelism
from bench.rows.methods import is_plain
from bench.rows.metrics import METRICS
from bench.rows.pairing import Pair, pair_errors
from bench.rows.table import Column, Table
from engines.core.row import Row
from engines.core.runtime import AUTO

LENGTHS: Final = ((20, 8), (60, 20), (128, 8))
"""Tokens in and out in FasterTransformer's published benchmark."""
HEADLINE_LENGTHS: Final = (60, 20)
"""The pair for which the paper published its own times (Table D.3, Figure 9)."""
COMPARED: Final = ("latency_s", "mfu", "cost_chip_s_per_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A model on a number of chips with one parallelism; its rows are whole generations."""

    label: str
    model: str
    hw: str
    num_chips: int
    weight_dtype: str
    runtime: str
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None

    def is_of(self, row: Row) -> bool:
        """Whether the row is of this contender, at any lengths and batch and of any kind of evidence.

        A prediction is, if it is of the runtime that the paper measured. A row of a method is not: the paper has none.
        """
        if not is_plain(row):
            return False
        if row.source == "predicted" and row.runtime not in (None, AUTO, self.runtime):
            return False
        return row.phase == "generate" and all(
            getattr(row, key) == getattr(self, key)
            for key in ("model", "hw", "num_chips", "weight_dtype", "tensor_parallel", "pipeline_parallel")
        )


def _fastertransformer(tensor_parallel: int, pipeline_parallel: int) -> Contender:
    return Contender(
        label=f"FasterTransformer {parallelism(tensor_parallel, pipeline_parallel)}",
        model="mt-nlg-530b",
        hw="a100-80gb",
        num_chips=tensor_parallel * pipeline_parallel,
        weight_dtype="float16",
        runtime="fastertransformer",
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
    )


PALM: Final = Contender(
    label="PaLM 540B, 64 TPU v4",
    model="palm-540b",
    hw="tpu-v4",
    num_chips=64,
    weight_dtype="bfloat16",
    runtime="xla-2022",
)
MT_NLG: Final = Contender(
    label="MT-NLG 530B, 64 TPU v4",
    model="mt-nlg-530b",
    hw="tpu-v4",
    num_chips=64,
    weight_dtype="bfloat16",
    runtime="xla-2022",
)
TP16: Final = _fastertransformer(16, 1)
TP32: Final = _fastertransformer(32, 1)
PP3_TP8: Final = _fastertransformer(8, 3)
CONTENDERS: Final = (PALM, MT_NLG, TP16, TP32, PP3_TP8)


def is_evidence(row: Row) -> bool:
    """Whether the row may decide a claim of the paper: of no method that the paper does not have, and a prediction only
    for a runtime that the paper measured.
    """
    measured = {contender.runtime for contender in CONTENDERS}
    return answered(row) and is_plain(row) and (row.source != "predicted" or row.runtime in (None, AUTO, *measured))


@dataclass(frozen=True, slots=True)
class Curve:
    """One contender's rows of one kind, engine and pair of lengths, by batch."""

    contender: Contender
    source: str
    engine: str
    lengths: tuple[int, int]
    rows: tuple[Row, ...]

    @property
    def label(self) -> str:
        """``FasterTransformer TP16, published``; an engine is named where it is not the only one of its kind."""
        usual = {"published": "published", "predicted": "analytic", "compiled": "compiled", "measured": "jax"}
        named = "" if usual[self.source] == self.engine else f" by {self.engine}"
        return f"{self.contender.label}, {self.source}{named}"


def curves(rows: Sequence[Row], pairs: Sequence[Pair]) -> list[Curve]:
    """The contenders' rows. Of several layouts, the row that pairs with a published one, else the fastest."""
    paired = {pair.answer.point_id for pair in pairs if pair.reference.source == "published"}
    found: dict[tuple[Any, ...], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if not answered(row) or (row.input_len, row.output_len) not in LENGTHS:
            continue
        for place, contender in enumerate(CONTENDERS):
            if contender.is_of(row):
                lengths = (row.input_len, row.output_len)
                mine = found[(LENGTHS.index(lengths), place, -SOURCES.index(row.source), row.engine)]
                now = mine.get(row.batch_size)
                if now is None or _rank(row, paired) < _rank(now, paired):
                    mine[row.batch_size] = row
    return [
        Curve(
            CONTENDERS[place],
            SOURCES[-kind],
            engine,
            LENGTHS[length],
            tuple(by_batch[batch] for batch in sorted(by_batch)),
        )
        for (length, place, kind, engine), by_batch in sorted(found.items())
    ]


def comparison_tables(all_curves: Sequence[Curve], pairs: Sequence[Pair]) -> list[Table]:
    """A summary; then latency, MFU and cost by batch, for each pair of lengths that has rows."""
    tables = [_summary(all_curves, pairs)]
    for lengths in LENGTHS:
        mine = [curve for curve in all_curves if curve.lengths == lengths]
        if mine:
            tables += [_by_batch(mine, lengths, name) for name in COMPARED]
    return tables


def _summary(all_curves: Sequence[Curve], pairs: Sequence[Pair]) -> Table:
    rows: list[dict[str, Any]] = []
    for curve in all_curves:
        ids = {row.point_id for row in curve.rows}
        errors = pair_errors(pair for pair in pairs if pair.answer.point_id in ids)
        best = max(curve.rows, key=lambda row: row.mfu or 0)
        rows.append(
            {
                "system": curve.contender.label,
                "source": curve.source,
                "engine": curve.engine,
                "lengths": f"{curve.lengths[0]}/{curve.lengths[1]}",
                "rows": len(curve.rows),
                "peak_mfu": best.mfu,
                "batch_size": best.batch_size,
                "latency_s": best.latency_s,
                "cost_chip_s_per_token": best.cost_chip_s_per_token,
                "least_latency_s": min(row.latency_s or 0 for row in curve.rows),
                "mean_error": None if errors is None else errors.mean,
            }
        )
    columns = [
        *(Column("system"), Column("source"), Column("engine"), Column("lengths", "tokens in/out")),
        Column("rows", "rows", 1.0, ".0f"),
        Column("peak_mfu", "highest MFU (%)", 100.0, ".1f"),
        Column("batch_size", "at batch", 1.0, ".0f"),
        *(Column("latency_s"), Column("cost_chip_s_per_token")),
        Column("least_latency_s", "least latency (s)", 1.0, ".4g"),
        Column("mean_error", "mean error (%)", 100.0, ".1f"),
    ]
    return Table(
        name="comparison_summary",
        caption="Highest MFU of each system, with the latency and the cost that go with it",
        columns=columns,
        rows=rows,
        note="The mean error is of the latencies against the published ones.",
    )


def _by_batch(mine: Sequence[Curve], lengths: tuple[int, int], name: str) -> Table:
    batches = sorted({row.batch_size for curve in mine for row in curve.rows})
    cells = [
        {"batch_size": batch} | {curve.label: _value(curve.rows, batch, name) for curve in mine} for batch in batches
    ]
    metric = METRICS[name]
    columns = [Column("batch_size", "batch", 1.0, ".0f")]
    columns += [Column(curve.label, curve.label, metric.scale, metric.spec) for curve in mine]
    return Table(
        name=f"comparison_{lengths[0]}_{lengths[1]}_{name}",
        caption=f"{metric.title}, {lengths[0]} tokens in, {lengths[1]} out",
        columns=columns,
        rows=cells,
    )


def _value(rows: Iterable[Row], batch_size: int, name: str) -> float | None:
    return next((getattr(row, name) for row in rows if row.batch_size == batch_size), None)


def _rank(row: Row, paired: set[str]) -> tuple[bool, float]:
    return (row.point_id not in paired, row.latency_s or float("inf"))
