"""What a smaller model saves and what it costs: speed against quality of pruned, distilled and quantised models."""

from collections.abc import Sequence
from typing import Final

from bench.report.main.findings import Finding
from bench.report.render.style import COLOURS, Drawn, legend, plain_log_ticks
from bench.rows.labels import answered
from bench.rows.table import Column, Table
from engines.core.row import Row
from engines.core.text import significant

TWO_OF_FOUR: Final = "2:4"
NEAR: Final = 1.1
"""Times the least perplexity: what a finding takes as nearly as good."""
FIGURES: Final = (
    "weights_bytes",
    "step_time_s",
    "tokens_per_s",
    "quality_kl",
    "quality_agreement",
    "quality_perplexity",
    "kl_divergence",
)


def with_quality(rows: Sequence[Row]) -> list[Row]:
    """Valid measured rows that state how near their model is to the whole one, or how well it predicts a text."""
    known = [row for row in rows if row.source == "measured" and answered(row)]
    return [row for row in known if row.quality_kl is not None or row.quality_perplexity is not None]


def method(row: Row) -> str:
    """What was done to the model: ``pruned heads``, ``int8``; its name and checkpoint where it is whole."""
    if row.pruning:
        parts = [part if part == TWO_OF_FOUR else part.partition(":")[0] for part in row.pruning.split("+")]
        return "+".join(["pruned", *parts]).replace("+", " ", 1)
    if row.weight_dtype != "float32":
        return f"{row.model}, {row.weight_dtype}"
    checkpoint = str(row.details.get("checkpoint", "")).partition("@")[0]
    return f"{row.model} ({checkpoint})" if checkpoint else row.model


def share(row: Row) -> str:
    """The shares that were left out: ``0.5``; empty where there are none."""
    return "+".join(part.partition(":")[2] for part in (row.pruning or "").split("+") if part and part != TWO_OF_FOUR)


def by_activation(row: Row) -> bool:
    """Whether a text chose the parts that were left out."""
    return row.details.get("pruning_by") == "activation"


def quality_finding(rows: Sequence[Row]) -> list[Finding]:
    """The fastest changed model whose perplexity is near the least of all, beside the fastest row of that least."""
    known = [row for row in with_quality(rows) if row.quality_perplexity is not None and row.tokens_per_s]
    if len(known) < 2:
        return []
    least = min(row.quality_perplexity or 0.0 for row in known)
    whole = max((row for row in known if row.quality_perplexity == least), key=_speed)
    near = [row for row in known if (row.quality_perplexity or 0.0) <= NEAR * least]
    best = max(near, key=_speed)
    more = _speed(best) / _speed(whole)
    sentence = (
        f"Of {len(known)} measured models, {method(best)}{f' {share(best)}' if share(best) else ''} makes "
        f"{significant(more, 3)} times the tokens a second of {method(whole)}, with a perplexity of "
        f"{significant(best.quality_perplexity or 0.0, 3)} against {significant(least, 3)}; none within {NEAR - 1:.0%} "
        "of the least perplexity is faster."
    )
    return [
        Finding("smaller models", ("measured",), sentence, {"speed_up": more, "perplexity": best.quality_perplexity})
    ]


def _speed(row: Row) -> float:
    return row.tokens_per_s or 0.0


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
        "perplexity is on held-out text. Number formats change the program that is timed, and not these: what they "
        "add is in the last column, the program's own KL to the same weights in float32."
    )
    return Table(name="quality", caption="Speed and quality of smaller models", columns=columns, rows=lines, note=note)


def quality_figure(rows: Sequence[Row]) -> Drawn | None:
    """Perplexity, or KL where no text was read, over tokens/s; one colour a method; None with fewer than two points."""
    mine = with_quality(rows)
    key = "quality_perplexity" if any(row.quality_perplexity is not None for row in mine) else "quality_kl"
    mine = [row for row in mine if getattr(row, key) is not None]
    if len(mine) < 2:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.8), layout="constrained")
    axis = figure.subplots()
    methods = list(dict.fromkeys(map(method, sorted(mine, key=lambda row: (bool(row.pruning), method(row))))))
    looks = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(methods)}
    for row in mine:
        x, y, colour = row.tokens_per_s or 0.0, getattr(row, key), looks[method(row)]
        marker = "s" if by_activation(row) else "o"
        axis.plot([x], [y], marker=marker, markersize=7.0, linestyle="", color=colour)
        beside = (6, -9) if by_activation(row) else (6, 4)
        axis.annotate(share(row), (x, y), xytext=beside, textcoords="offset points", fontsize=7, color=colour)
    marks = [("chosen by magnitude", "o"), ("chosen by activations", "s")] if any(map(by_activation, mine)) else []
    legend(figure, list(looks.items()), [], marks)
    axis.set_xscale("log")
    axis.set_yscale("log")
    plain_log_ticks(axis.xaxis)
    plain_log_ticks(axis.yaxis)
    axis.set_xlabel("tokens/s")
    axis.set_ylabel("perplexity of held-out text" if key == "quality_perplexity" else "KL to the whole model (nats)")
    first = mine[0]
    caption = (
        f"Measured {first.phase} on {first.hw}, batch {first.batch_size}: speed against quality of whole, pruned and "
        "distilled models; beside a mark, the share that was left out. Right and down is better. The quality of a "
        "number format is that of its weights before they are rounded."
    )
    return Drawn("quality_over_speed", caption, figure)
