"""What a smaller model saves and what it costs: speed against quality of pruned, distilled and quantised models."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from bench.report.main.findings import Finding
from bench.report.render.style import COLOURS, Drawn, legend, plain_log_ticks
from bench.report.render.text_apart import label_apart
from bench.rows.labels import answered
from bench.rows.table import Column, Table
from engines.core.row import Row
from engines.core.text import significant

TWO_OF_FOUR: Final = "2:4"
NEAR: Final = 1.1
"""Times the least perplexity: what a finding takes as nearly as good."""
SETTING: Final = ("hw", "num_chips", "engine", "phase", "batch_size", "input_len", "output_len")
"""Keys that rows share whose speeds are compared."""
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


def _of_one_setting(rows: Sequence[Row]) -> list[Row]:
    """The rows of the setting that most of them share: other chips or another batch are no method's gain."""
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(getattr(row, key) for key in SETTING)].append(row)
    return max(found.values(), key=len, default=[])


def method(row: Row) -> str:
    """What was done to the model: ``pruned heads``, ``early exit from 0.5``, its number format where that is not
    float32; its name and checkpoint where it is whole.
    """
    changes = []
    if row.pruning:
        parts = [part if part == TWO_OF_FOUR else part.partition(":")[0] for part in row.pruning.split("+")]
        changes.append("+".join(["pruned", *parts]).replace("+", " ", 1))
    if row.exit_threshold is not None:
        changes.append(f"early exit from {row.exit_threshold:g}")
    if row.weight_dtype != "float32":
        changes += [row.weight_dtype] if changes else [row.model, row.weight_dtype]
    if changes:
        return ", ".join(changes)
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
    known = _of_one_setting(known)
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
    exits = ["exit_threshold"] if any(row.exit_threshold is not None for row in mine) else []
    told_keys = ("model", "hw", "phase", "batch_size", "pruning", *exits, "weight_dtype")
    columns = [
        *(Column(key) for key in told_keys[:-1]),
        Column("by"),
        Column("weight_dtype"),
        *(Column(key) for key in FIGURES),
    ]
    lines = []
    for row in mine:
        told = {key: getattr(row, key) for key in told_keys}
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
    mine = _of_one_setting([row for row in mine if getattr(row, key) is not None])
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
    marks = [("chosen by magnitude", "o"), ("chosen by activations", "s")] if any(map(by_activation, mine)) else []
    legend(figure, list(looks.items()), [], marks)
    axis.set_xscale("log")
    axis.set_yscale("log")
    plain_log_ticks(axis.xaxis)
    plain_log_ticks(axis.yaxis)
    axis.set_xlabel("tokens/s")
    axis.set_ylabel("perplexity of held-out text" if key == "quality_perplexity" else "KL to the whole model (nats)")
    marked = [(row.tokens_per_s or 0.0, getattr(row, key), share(row), looks[method(row)]) for row in mine]
    label_apart(axis, marked)
    first = mine[0]
    caption = (
        f"Measured {first.phase} on {first.hw}, batch {first.batch_size}: speed against quality of whole and "
        "changed models; beside a mark, the share that was left out. Right and down is better. The quality of a "
        "number format is that of its weights before they are rounded."
    )
    return Drawn("quality_over_speed", caption, figure)
