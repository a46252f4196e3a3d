"""One line a system and kind of evidence: how fast, how cheap, split how, and what it does to the text."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.report.field.systems import SAME, quality_of, system_of
from bench.rows.frontier import time_of
from bench.rows.labels import SOURCES, layout_label, model_label, parallelism
from bench.rows.table import Column, Table
from engines.core.row import Row

STEP_LIMIT_S: Final = 0.05
"""Twenty tokens a second: somewhat faster than one reads."""
NOTE: Final = (
    "Cheapest: the least cost among points within 50 ms a step, or of all where none is. The layout is the cheapest "
    "point's, and the fastest's where that differs. Quality is that of the text beside the whole model's."
)
RANDOM: Final = " Weights are random where a row has no checkpoint, so that its quality says only that it is measured."


def setting_of(row: Row) -> str:
    """What the systems of one figure have in common: chips and phase; models differ where a method changes them."""
    return f"{row.num_chips} {row.hw}, {row.phase} of {row.output_len or row.input_len} tokens"


def file_name(setting: str) -> str:
    """A setting as the name of its table and figure."""
    return "field_" + "".join(each if each.isalnum() else "_" for each in setting)


def by_system(rows: Sequence[Row]) -> Mapping[tuple[str, str], list[Row]]:
    """(system, source) → its rows, those of a system together, in the order of names and of :data:`SOURCES`."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (system_of(row), SOURCES.index(row.source))):
        found.setdefault((system_of(row), row.source), []).append(row)
    return found


def split_of(row: Row) -> str:
    """The layout that a row ran, as the planner or the user chose it."""
    if row.shardings:
        from engines.core.sharding_summary import summary
        from engines.core.shardings import Shardings

        return summary(Shardings.parse(row.shardings))
    if row.tensor_parallel is not None:
        return parallelism(row.tensor_parallel, row.pipeline_parallel)
    return layout_label(row)


def fastest_and_cheapest(rows: Sequence[Row]) -> tuple[Row, Row]:
    """Of rows with a time and a cost, the fastest, and the cheapest within :data:`STEP_LIMIT_S`, or of all."""
    fastest = min(rows, key=lambda row: time_of(row) or 0.0)
    within = [row for row in rows if (time_of(row) or 0.0) <= STEP_LIMIT_S] or rows
    return fastest, min(within, key=lambda row: row.cost_chip_s_per_token or 0.0)


def systems_table(name: str, caption: str, settings: Mapping[str, Sequence[Row]]) -> Table:
    """One line a setting, system and kind of evidence, with dollars where the command was given prices."""
    lines = [
        _line(setting, system, source, own)
        for setting, rows in settings.items()
        for (system, source), own in by_system(rows).items()
    ]
    rows = [row for each in settings.values() for row in each]
    priced = sorted({row.price for row in rows if row.cost_usd_per_mtok is not None and row.price})
    columns = [
        *([Column("setting")] if len(settings) > 1 else []),
        *(Column("system"), Column("source"), Column("model"), Column("split", "layout")),
        *(Column("fast", "fastest step (ms)", 1e3, ".4g"), Column("fast_batch", "at batch")),
        Column("cost", "cheapest (chip-ms/token)", 1e3, ".4g"),
        *([Column("usd", "cheapest (USD/Mtok)", 1.0, ".3g")] if priced else []),
        *(Column("batch", "at batch "), Column("time", "its step (ms)", 1e3, ".4g")),
        *(Column("mfu", "its MFU (%)", 100.0, ".1f"), Column("quality")),
    ]
    note = NOTE + (f" Dollars are by price={'; '.join(priced)}." if priced else "")
    if any(row.quality_kl is not None and row.source == "measured" for row in rows):
        note += RANDOM
    return Table(name=name, caption=caption, columns=columns, rows=lines, note=note)


def _line(setting: str, system: str, source: str, rows: Sequence[Row]) -> dict[str, Any]:
    fastest, cheapest = fastest_and_cheapest(rows)
    splits = list(dict.fromkeys(filter(None, (split_of(cheapest), split_of(fastest)))))
    return {
        "setting": setting,
        "system": system,
        "source": source,
        "model": model_label(cheapest.model),
        "split": "; fastest: ".join(splits) or "not stated",
        "fast": time_of(fastest),
        "fast_batch": fastest.batch_size,
        "cost": cheapest.cost_chip_s_per_token,
        "usd": cheapest.cost_usd_per_mtok,
        "batch": cheapest.batch_size,
        "time": time_of(cheapest),
        "mfu": cheapest.mfu,
        "quality": quality_of(cheapest),
    }


def without_time(rows: Sequence[Row]) -> Table:
    """Points that were asked and have no time, with the reason."""
    keys = ("engine", "hw", "batch_size", "status", "error")
    lines = [{"system": system_of(row), **{key: getattr(row, key) for key in keys}} for row in rows]
    columns = [Column("system"), *map(Column, keys)]
    return Table(name="field_unanswered", caption="Points without a time", columns=columns, rows=lines)


def same_text(rows: Sequence[Row]) -> list[Row]:
    """Rows of systems that answer the same question with the same text: weights of 16 bits, prompts of one length."""
    return [row for row in rows if quality_of(row) == SAME and row.lengths in (None, "equal")]
