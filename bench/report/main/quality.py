"""What a smaller model saves and what it costs: speed against quality of pruned, distilled and quantised models."""

from collections.abc import Sequence

from bench.report.render.style import COLOURS, Drawn, plain_log_ticks
from bench.rows.labels import answered
from bench.rows.table import Column, Table
from engines.core.row import Row

FIGURES = ("weights_bytes", "step_time_s", "tokens_per_s", "quality_kl", "quality_agreement", "quality_perplexity")


def with_quality(rows: Sequence[Row]) -> list[Row]:
    """Valid measured rows that state how near their model is to the whole one, or how well it predicts a text."""
    known = [row for row in rows if row.source == "measured" and answered(row)]
    return [row for row in known if row.quality_kl is not None or row.quality_perplexity is not None]


def label(row: Row) -> str:
    """What was done to the model: ``columns:0.5``, ``int8``, or its name where it is whole."""
    done = [row.pruning or "", row.details.get("pruning_by", ""), row.weight_dtype * (row.weight_dtype != "float32")]
    return " ".join(filter(None, done)) or row.model


def quality_table(rows: Sequence[Row]) -> Table | None:
    """Each row with what it was made of, its speed and its quality; None without any."""
    mine = with_quality(rows)
    if not mine:
        return None
    keys = [Column(key) for key in ("model", "hw", "phase", "batch_size", "pruning")]
    columns = [*keys, Column("by"), Column("weight_dtype"), *(Column(key) for key in FIGURES)]
    lines = []
    for row in mine:
        told = {key: getattr(row, key) for key in ("model", "hw", "phase", "batch_size", "pruning", "weight_dtype")}
        figures = {key: getattr(row, key) for key in FIGURES}
        by = row.details.get("pruning_by", "magnitude") if row.pruning else None
        lines.append({**told, "by": by, **figures})
    note = (
        "KL and agreement are against the whole model, or the teacher of a distilled one, in float32 on one device; "
        "perplexity is on held-out text. Number formats change the program that is timed, and not these."
    )
    return Table(name="quality", caption="Speed and quality of smaller models", columns=columns, rows=lines, note=note)


def quality_figure(rows: Sequence[Row]) -> Drawn | None:
    """Perplexity, or KL where no text was read, over tokens/s; one colour a model; None with fewer than two points."""
    mine = with_quality(rows)
    key = "quality_perplexity" if any(row.quality_perplexity is not None for row in mine) else "quality_kl"
    mine = [row for row in mine if getattr(row, key) is not None]
    if len(mine) < 2:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    axis = figure.subplots()
    colours = dict(zip(sorted({row.model for row in mine}), COLOURS, strict=False))
    for row in mine:
        x, y = row.tokens_per_s or 0.0, getattr(row, key)
        face = colours.get(row.model, COLOURS[-1])
        axis.plot([x], [y], marker="o", linestyle="", color=face)
        axis.annotate(label(row), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7, color=face)
    axis.set_xscale("log")
    axis.set_yscale("log")
    plain_log_ticks(axis.xaxis)
    plain_log_ticks(axis.yaxis)
    axis.set_xlabel("tokens/s")
    axis.set_ylabel("perplexity of held-out text" if key == "quality_perplexity" else "KL to the whole model (nats)")
    first = mine[0]
    caption = (
        f"Measured {first.phase} on {first.hw}, batch {first.batch_size}: speed against quality of whole, pruned and "
        "distilled models. Right and down is better."
    )
    return Drawn("quality_over_speed", caption, figure)
