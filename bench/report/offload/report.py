"""FlexGen's question, answered from rows: which batch and which offload make the cheapest token on one GPU?"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.report.main.findings import Finding
from bench.report.offload.figures import cost_figure, timeline_figure
from bench.report.render.document import Document, Front, Section
from bench.rows.counted import counted
from bench.rows.labels import model_label
from bench.rows.table import Column, Table
from engines.core.errors import ShardbenchError
from engines.core.row import Row
from engines.core.text import significant

SWEEP: Final = "study-offload"
COMMAND: Final = f"shardbench run +sweep={SWEEP}"
HOST_BYTES: Final = 1e12
"""Of a host's memory: findings that take more say what is cheapest within it."""
PLACES: Final[Mapping[str, str]] = {"none": "HBM", "host": "host memory", "nvme": "NVMe"}


def place(row: Row) -> str:
    """Where weights and cache of a row wait, in words."""
    weights, cache = (PLACES[each or "none"] for each in (row.offload, row.offload_kv))
    return f"weights in {weights}, cache in {cache}"


def cost(row: Row) -> float | None:
    """Chip-seconds of a generated token: latency · chips / (batch · output_len); None where there is no time."""
    made = row.batch_size * row.output_len
    return None if row.latency_s is None or row.status != "ok" or not made else row.latency_s * row.num_chips / made


def offload_report(rows: Sequence[Row], title: str) -> Document:
    """What the cheapest token takes, predicted; and what streaming did in measured rows.

    Raises:
        ShardbenchError: the store holds neither.
    """
    predicted = [row for row in rows if row.sweep == SWEEP and row.source == "predicted"]
    measured = [row for row in rows if row.source == "measured" and row.details.get("offload")]
    if not predicted and not measured:
        raise ShardbenchError(f"offload: the store holds no row of an offloaded point; run {COMMAND} first")
    findings, sections = [], []
    front = None
    if predicted:
        best = cheapest(predicted)
        first = _answers(best, predicted)
        findings += first + [_finding(own, predicted) for own in best.values() if own]
        section = _predicted_section(predicted, best)
        sections.append(section)
        front = Front(findings=first, draw=section.draw, table=section.tables[0], text=section.text)
    if measured:
        findings.append(_streamed(measured))
        sections.append(_measured_section(measured))
    return Document(name="offload", title=title, findings=findings, sections=sections, front=front)


def cheapest(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """(model, number format) → the cheapest row of each place that fits, the cheapest first."""
    found: dict[tuple[str, str], list[Row]] = {}
    for group in dict.fromkeys((row.model, row.weight_dtype) for row in rows):
        timed = [row for row in rows if (row.model, row.weight_dtype) == group and cost(row) is not None]
        of_place: dict[str, Row] = {}
        for row in sorted(timed, key=lambda row: cost(row) or 0.0):
            of_place.setdefault(place(row), row)
        found[group] = list(of_place.values())
    return found


def _answers(best: Mapping[tuple[str, str], Sequence[Row]], rows: Sequence[Row]) -> list[Finding]:
    """The answer in a sentence a model: batch, place and number format of its cheapest token, and by how much."""
    found = []
    for model in dict.fromkeys(model for model, _ in best):
        ranked = sorted((row for (of, _), rows in best.items() if of == model for row in rows), key=_cost)
        if not ranked:
            continue
        row = ranked[0]
        sentence = (
            f"The cheapest token of {model_label(model)} on one {row.hw}: batch {row.batch_size}, {row.weight_dtype}, "
            f"{place(row)}, {significant(_cost(row), 3)} chip-seconds"
        )
        usd = usd_per_mtok(row)
        sentence += "" if usd is None else f" or {significant(usd, 3)} USD a million"
        small = [each for each in rows if each.model == model and cost(each) and _host_bytes(each) <= HOST_BYTES]
        within = min(small, key=_cost, default=row)
        if _host_bytes(row) > HOST_BYTES and within is not row:
            sentence += f" with {significant(_host_bytes(row) / 1e12, 2)} TB of host memory"
            sentence += f" (within {HOST_BYTES / 1e12:g} TB: batch {within.batch_size}, {within.weight_dtype}, "
            sentence += f"{place(within)}, {significant(_cost(within), 3)})"
        other = next((each for each in ranked if place(each) != place(row)), None)
        if other is not None:
            more = _cost(other) / _cost(row)
            sentence += f"; the next best place ({place(other)}, {other.weight_dtype}, batch {other.batch_size}) costs "
            sentence += "the same" if more < 1.005 else f"{significant(more, 3)} times that"
        found.append(Finding("The cheapest token", ("predicted",), sentence + ".", {"chip_s_per_token": _cost(row)}))
    return found


def _cost(row: Row) -> float:
    return cost(row) or 0.0


def usd_per_mtok(row: Row) -> float | None:
    """US dollars for a million generated tokens, where the command was given a price of the chip."""
    if row.cost_usd_per_mtok is None or not row.cost_chip_s_per_token:
        return None
    return _cost(row) * row.cost_usd_per_mtok / row.cost_chip_s_per_token


def _finding(best: Sequence[Row], rows: Sequence[Row]) -> Finding:
    row = best[0]
    model, dtype = row.model, row.weight_dtype
    seconds = cost(row) or 0.0
    sentence = (
        f"{model_label(model)} in {dtype} on one {row.hw} makes its cheapest token with {place(row)}, at batch "
        f"{row.batch_size}: {significant(seconds)} chip-seconds, {significant(1 / seconds)} tokens per second"
        f"{_hosted(row)}."
    )
    if _host_bytes(row) > HOST_BYTES:
        within = [
            each
            for each in rows
            if (each.model, each.weight_dtype) == (model, dtype) and cost(each) and _host_bytes(each) <= HOST_BYTES
        ]
        other = min(within, key=lambda each: cost(each) or 0.0, default=None)
        if other is not None:
            sentence += (
                f" Within {HOST_BYTES / 1e12:g} TB of host memory it is {place(other)}, at batch {other.batch_size}: "
                f"{significant(cost(other) or 0.0)} chip-seconds."
            )
    numbers = {f"{place(each)}, batch {each.batch_size}": cost(each) for each in best}
    return Finding(f"{model_label(model)}, {dtype}", ("predicted",), sentence, numbers)


def _host_bytes(row: Row) -> float:
    return float(row.details.get("host_bytes") or 0.0)


def _hosted(row: Row) -> str:
    held = _host_bytes(row)
    return f", with {significant(held / 1e9)} GB in host memory" if held else ""


def _predicted_section(rows: Sequence[Row], best: Mapping[tuple[str, str], Sequence[Row]]) -> Section:
    first = rows[0]
    text = (
        f"Prompts of {first.input_len} tokens and {first.output_len} generated, on one {first.hw}: the workload of "
        "FlexGen (Sheng et al. 2023, arXiv 2303.06865). A layer takes the longest of its compute, its link and its "
        "drive; two layers are on the chip. The cost is that of the whole request over its generated tokens, so the "
        "cache, which grows with every token and every sequence, counts in bytes moved and in what fits. Rates of host "
        f"link and drive are those of `conf/hw/{first.hw}.yaml`; how much host memory that takes stands in the table. "
        f"Recipe: `{COMMAND}`."
    )
    columns = [
        *(Column("model"), Column("weight_dtype", "weights"), Column("place", "where")),
        Column("batch_size", "batch"),
        Column("cost", "chip-s per token", 1.0, ".3g"),
        *([Column("usd", "USD/Mtok generated", 1.0, ".3g")] if any(map(usd_per_mtok, rows)) else []),
        Column("tokens_per_s", "generated tokens/s", 1.0, ".3g"),
        Column("step_time_s", "step (s)", 1.0, ".3g"),
        Column("held", "held on the chip (GB)", 1e-9, ".3g"),
        Column("host", "in host memory (GB)", 1e-9, ".4g"),
    ]

    def cells(row: Row) -> dict[str, Any]:
        seconds = cost(row)
        return {
            "model": model_label(row.model),
            "weight_dtype": row.weight_dtype,
            "place": place(row),
            "batch_size": row.batch_size,
            "cost": seconds if row.status == "ok" else row.status,
            "usd": usd_per_mtok(row),
            "tokens_per_s": None if seconds is None else row.num_chips / seconds,
            "step_time_s": row.step_time_s,
            "held": row.peak_hbm_bytes,
            "host": row.details.get("host_bytes"),
        }

    whole = Table(name="offload_all", caption="All batches and places", columns=columns, rows=[*map(cells, rows)])
    small = Table(
        name="offload_cheapest",
        caption="The cheapest batch of each place",
        columns=columns,
        rows=[cells(row) for own in best.values() for row in own],
        note="A place that is not there fits at no batch of the sweep.",
    )
    return Section(
        title="The cheapest token on one GPU",
        text=text,
        tables=[small],
        linked=[whole],
        draw=lambda: [cost_figure(rows, place, cost)],
    )


def _runs(row: Row) -> list[tuple[str, Mapping[str, Any]]]:
    return list(row.details["offload"].items())


def _streamed(rows: Sequence[Row]) -> Finding:
    runs = [(row, run) for row in rows for _, run in _runs(row)]
    fetches = sum(run["fetches"] for _, run in runs)
    overlapped = sum(run["fetches_overlapped"] for _, run in runs)
    possible = fetches - len(runs)  # nothing computes while the first layer arrives
    sentence = (
        f"{overlapped / max(possible, 1):.1%} of {possible} fetches began before the layer before them was computed, "
        f"in {counted(len(rows), 'measured row')} of {' and '.join(sorted({row.engine for row in rows}))}."
    )
    return Finding("Fetching ahead", ("measured",), sentence, {"fetches": fetches, "overlapped": overlapped})


def _measured_section(rows: Sequence[Row]) -> Section:
    def cells(row: Row, stage: str, run: Mapping[str, Any]) -> dict[str, Any]:
        steps = 1 if stage == "prefill" else row.output_len
        return {
            **{key: getattr(row, key) for key in ("model", "engine", "offload", "batch_size", "max_relative_error")},
            "stage": stage,
            "resident": row.details.get("peak_resident_bytes"),
            "layers": (run.get("read_bytes") or run["copy_bytes"]) / steps,
            "read": run.get("read_bytes"),
            "sent": run["copy_bytes"],
            "busy": run.get("read_busy_s"),
            "copied": run["copy_busy_s"],
            "computed": run["compute_busy_s"],
            "latency_s": row.latency_s,
            "overlapped": f"{run['fetches_overlapped']} of {run['fetches'] - 1}",
            "valid": row.valid,
        }

    table = Table(
        name="offload_measured",
        caption="Measured: bytes of the last run, and how long each part was busy",
        columns=[
            *(Column("model"), Column("engine"), Column("offload"), Column("stage")),
            Column("resident", "most memory of the process (GB)", 1e-9, ".3g"),
            Column("layers", "layers (GB)", 1e-9, ".4g"),
            Column("read", "read (GB)", 1e-9, ".4g"),
            Column("sent", "copied (GB)", 1e-9, ".4g"),
            Column("busy", "reading (s)", 1.0, ".3g"),
            Column("copied", "copying (s)", 1.0, ".3g"),
            Column("computed", "computing (s)", 1.0, ".3g"),
            Column("latency_s", "latency (s)", 1.0, ".4g"),
            *(Column("overlapped", "fetched ahead"), Column("valid")),
            Column("max_relative_error", "error of logits", 1.0, ".1e"),
        ],
        rows=[cells(row, stage, run) for row in rows for stage, run in _runs(row)],
        note="Times of reading, copying and computing are of the last run and overlap; latency is the median of all.",
    )
    text = (
        "Layers that wait in a file or in host memory are read and copied while others compute. Bytes are counted by "
        "the reader itself; where the kernel counts what a process reads from a drive, a test compares both."
    )
    # One timeline an engine, of a file where there is one: that has reads as well.
    ordered = sorted(rows, key=lambda row: row.offload != "nvme")
    drawn = {row.engine: row for row in reversed(ordered)}
    engines = sorted(drawn)
    return Section(
        title="Measured", text=text, tables=[table], draw=lambda: [timeline_figure(drawn[each]) for each in engines]
    )
