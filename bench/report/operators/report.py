"""The report: the time of each way to partition a workload, and what each way made of every operator."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report.main.findings import Finding
from bench.report.operators.rows import ALPA, GSPMD, MANUAL, WAYS, Workload, seconds, workloads
from bench.report.render.document import Document, Section
from bench.rows.table import Column, Table
from engines.core.errors import ShardbenchError
from engines.core.row import Row
from engines.core.sharding_summary import summary
from engines.core.shardings import Shardings
from engines.core.text import significant

COMMAND = "shardbench run +sweep=operators"
ABOUT = (
    "*Compiled* is the schedule of XLA's TPU compiler, timed. *Predicted* are, of our program, the closed forms; of a "
    "compiler that partitions, their constants operator by operator, with the collectives that XLA emits. Our program "
    "states every collective; GSPMD is told how the values between matmuls are split, by a named layout or by Alpa's "
    "plan, and inserts the collectives itself."
)
READING = (
    "A matmul ÷t·r·c has its tokens, rows and columns cut into that many parts, as its shape on a chip shows; "
    "a collective names its mesh axes and the bytes of a chip's larger side, in every layer. Communication counts in "
    "full, whether a matmul hides it or not."
)


def operators_report(rows: Sequence[Row], title: str) -> Document:
    """The report of the workloads of compiled rows.

    Raises:
        ShardbenchError: no row says what operators became.
    """
    found = workloads(rows)
    if not found:
        raise ShardbenchError(f"operators: no compiled row says what operators became; run {COMMAND} first")
    return Document(
        name="operators",
        title=title,
        findings=[finding for each in found for finding in _findings(each)],
        sections=[
            Section(title="Time of each way", text=ABOUT, tables=[_times(found)]),
            *(
                Section(title=each.label, text=READING, tables=[_operators(each)])
                for each in found
                if any(each.operators(way) for way in WAYS)
            ),
        ],
    )


def _findings(each: Workload) -> list[Finding]:
    times = {way: seconds(row) for way, row in each.compiled.items()}
    manual, found = times.get(MANUAL), []
    for way in (GSPMD, ALPA):
        mine = times.get(way)
        if manual is None or mine is None:
            continue
        ratio, figures = mine / manual, {"ratio": mine / manual}
        what = f"GSPMD in {each.layout}" if way == GSPMD else "GSPMD by Alpa's plan"
        text = f"{each.label}: {what} takes {significant(ratio)} times as long as our program in {each.layout}"
        if each.sent_bytes(MANUAL) and each.sent_bytes(way):
            figures["bytes_ratio"] = each.sent_bytes(way) / each.sent_bytes(MANUAL)
            text += f", and its collectives move {significant(figures['bytes_ratio'])} times the bytes"
        text += "."
        found.append(Finding("operators", ("compiled",), text, figures))
    return found


def _times(found: Sequence[Workload]) -> Table:
    lines: list[Mapping[str, Any]] = []
    for each in found:
        by_plan = each.predicted.get(ALPA)
        for way in WAYS:
            compiled, predicted = each.compiled.get(way), each.predicted.get(way)
            if compiled is None and predicted is None:
                continue
            refused = "" if compiled is None or compiled.status == "ok" else f"{compiled.status}: {compiled.error}"
            lines.append(
                {
                    "workload": each.label,
                    "way": WAYS[way],
                    "plan": _plan(each, way),
                    "predicted_s": each.named_s if way == GSPMD and each.named_s is not None else seconds(predicted),
                    "compiled_s": seconds(compiled),
                    "sent_bytes": each.sent_bytes(way) or None,
                    "planning_s": by_plan.details.get("planning_s") if way == ALPA and by_plan is not None else None,
                    "error": refused,
                }
            )
    columns = [
        *(Column("workload"), Column("way", "partitioned by"), Column("plan")),
        *(Column("predicted_s", "predicted (ms)", 1e3, ".4g"), Column("compiled_s", "compiled (ms)", 1e3, ".4g")),
        Column("sent_bytes", "sent a pass (MB)", 1e-6, ".4g"),
        Column("planning_s", "planned in (s)", 1.0, ".2g"),
    ]
    if any(line["error"] for line in lines):
        columns.append(Column("error", "no answer"))
    return Table(
        name="operator_plans",
        caption="A decode step, or a whole prefill, in each way",
        columns=columns,
        rows=lines,
    )


def _plan(each: Workload, way: str) -> str:
    """The layout, or what Alpa's plan is."""
    row = each.compiled.get(way) or each.predicted.get(way)
    if way != ALPA or row is None or row.shardings is None:
        return each.layout
    return summary(Shardings.parse(row.shardings))


def _operators(each: Workload) -> Table:
    told = {way: each.operators(way) for way in WAYS}
    names = dict.fromkeys(name for mine in told.values() for name in mine)
    layers = _layers(each)
    rows = [
        {"operator": name, **{way: _cell(told[way].get(name), layers) for way in WAYS if told[way]}} for name in names
    ]
    return Table(
        name=f"operators_{each.name}",
        caption=f"What each operator became: {each.label}",
        columns=[Column("operator"), *(Column(way, WAYS[way]) for way in WAYS if told[way])],
        rows=rows,
    )


def _layers(each: Workload) -> float:
    """How often a layer's operators run in a pass: what most matmuls do."""
    runs = [
        product["runs"] for way in WAYS for operator in each.operators(way).values() for product in operator["matmuls"]
    ]
    return float(max(set(runs), key=runs.count)) if runs else 1.0


def _cell(told: Mapping[str, Any] | None, layers: float) -> str:
    """``÷1·4·16 in 128 µs; reduce-scatter x 1.31 MB``, of one layer."""
    if told is None:
        return "nothing"
    per = layers if any(_often(each, layers) for each in (*told["matmuls"], *told["collectives"])) else 1.0
    shapes = dict.fromkeys(
        "÷" + "·".join(f"{parts:g}" for parts in each["parts"]) for each in told["matmuls"] if each["parts"]
    )
    words = [f"{' and '.join(shapes)} in {significant(told['compute_s'] / per * 1e6)} µs"] if shapes else []
    for each in told["collectives"]:
        count = each["runs"] / per
        if count >= 0.5:
            times = "" if round(count) == 1 else f"{round(count)} × "
            words.append(f"{times}{each['kind']} {each['axes']} {significant(each['bytes'] / 1e6)} MB")
    return "; ".join(words) or "no collective"


def _often(each: Mapping[str, Any], layers: float) -> bool:
    return bool(each["runs"] >= 0.9 * layers)
