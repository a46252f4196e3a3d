"""What a smaller model saves and what it costs: speed against quality of pruned, distilled and quantised models."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bench.report.main.findings import Finding
from bench.report.render.style import COLOURS, Drawn, legend, panels, plain_log_ticks
from bench.rows.counted import counted
from bench.rows.labels import answered
from bench.rows.table import Column, Table
from engines.core.row import Row
from engines.core.text import significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KL_LABEL: Final = "KL to the whole model (nats)"
TWO_OF_FOUR: Final = "2:4"
NEAR: Final = 1.1
"""Times the least perplexity: what a finding takes as nearly as good."""
SETTING: Final = ("hw", "num_chips", "phase", "batch_size", "input_len", "output_len")
"""Keys that rows share whose speeds are compared, each engine's by themselves."""
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


def of_one_setting(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Engine → its rows of the setting that most rows share: other chips or another batch are no method's gain."""
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(getattr(row, key) for key in SETTING)].append(row)
    engines: dict[str, list[Row]] = defaultdict(list)
    for row in max(found.values(), key=len, default=[]):
        engines[row.engine].append(row)
    return dict(sorted(engines.items()))


def number_format(row: Row) -> str:
    """``int8``, ``int4 in groups of 64``."""
    groups = "" if row.weight_group_size is None else f" in groups of {row.weight_group_size}"
    return f"{row.weight_dtype}{groups}"


def method(row: Row) -> str:
    """What was done to the model: ``pruned heads``, ``early exit from 0.5``, its number format where that is not
    float32; its name and checkpoint where it is whole.
    """
    changes = _left_out(row)
    if row.weight_dtype != "float32":
        changes += [number_format(row)] if changes else [row.model, number_format(row)]
    return ", ".join(changes) or _whole(row)


def family(row: Row) -> str:
    """What has one colour: :func:`method`, of which all number formats of a whole model are one."""
    rounded = row.weight_dtype != "float32" and not _left_out(row)
    return f"{_whole(row)}, rounded" if rounded else method(row)


def share(row: Row) -> str:
    """What stands beside a mark: the shares that were left out, ``0.5``, or the number format of a whole model."""
    if row.weight_dtype != "float32" and not _left_out(row):
        return number_format(row)
    return "+".join(part.partition(":")[2] for part in (row.pruning or "").split("+") if part and part != TWO_OF_FOUR)


def by_activation(row: Row) -> bool:
    """Whether a text chose the parts that were left out."""
    return row.details.get("pruning_by") == "activation"


def named(row: Row, key: str) -> str:
    """The name of a row's ``checkpoint``, ``teacher`` or ``text``, without the digest; empty without one."""
    return str(row.details.get(key, "")).partition("@")[0]


def _left_out(row: Row) -> list[str]:
    changes = []
    if row.pruning:
        parts = [part if part == TWO_OF_FOUR else part.partition(":")[0] for part in row.pruning.split("+")]
        changes.append("+".join(["pruned", *parts]).replace("+", " ", 1))
    if row.exit_threshold is not None:
        changes.append(f"early exit from {row.exit_threshold:g}")
    return changes


def _whole(row: Row) -> str:
    checkpoint = named(row, "checkpoint")
    return f"{row.model} ({checkpoint})" if checkpoint else row.model


def quality_finding(rows: Sequence[Row]) -> list[Finding]:
    """Of each engine, the fastest changed model whose perplexity is near the least, and what number formats gain."""
    engines = of_one_setting([row for row in with_quality(rows) if row.quality_perplexity and row.tokens_per_s])
    return [found for engine, mine in engines.items() for found in (*_fastest(engine, mine), *_formats(engine, mine))]


def _fastest(engine: str, known: Sequence[Row]) -> list[Finding]:
    """The fastest nearly as good, beside the fastest of the least perplexity; of equally fast ones the best."""
    if len(known) < 2:
        return []
    least = min(map(_perplexity, known))
    whole = max((row for row in known if row.quality_perplexity == least), key=_speed)
    near = [row for row in known if _perplexity(row) <= NEAR * least]
    fastest = max(near, key=_speed)
    best = min((row for row in near if _as_fast(row, fastest)), key=_perplexity)
    more, left = _speed(best) / _speed(whole), f" {share(best)}" if best.pruning else ""
    sentence = (
        f"Of {len(known)} models measured with {engine}, {method(best)}{left} makes "
        f"{significant(more, 3)} times the tokens a second of {method(whole)}, with a perplexity of "
        f"{significant(_perplexity(best), 3)} against {significant(least, 3)}; none within {NEAR - 1:.0%} of the least "
        "perplexity is faster by more than the 95% intervals."
    )
    numbers = {"speed_up": more, "perplexity": best.quality_perplexity}
    return [Finding("smaller models", ("measured",), sentence, numbers)]


def _formats(engine: str, known: Sequence[Row]) -> list[Finding]:
    """Tokens a second and perplexity of a whole model's number formats, against its own float32."""
    parts, numbers = [], {}
    for row in known:
        if row.weight_dtype == "float32" or _left_out(row):
            continue
        for exact in known:
            if exact.weight_dtype == "float32" and not _left_out(exact) and _whole(exact) == _whole(row):
                more, worse = _speed(row) / _speed(exact), _perplexity(row) / _perplexity(exact)
                parts.append(
                    f"{number_format(row)} {significant(more, 3)} times the speed and {significant(worse, 4)} times "
                    "the perplexity"
                )
                numbers[number_format(row)] = more
    if not parts:
        return []
    sentence = f"Against float32 weights, with {engine} on {known[0].hw}: {'; '.join(parts)}."
    return [Finding("number formats", ("measured",), sentence, numbers)]


def _speed(row: Row) -> float:
    return row.tokens_per_s or 0.0


def _perplexity(row: Row) -> float:
    return row.quality_perplexity or 0.0


def _as_fast(row: Row, fastest: Row) -> bool:
    """Whether the intervals of both medians overlap."""
    if row.ci_low is None or fastest.ci_high is None:
        return _speed(row) == _speed(fastest)
    return row.ci_low <= fastest.ci_high


def quality_table(rows: Sequence[Row]) -> Table | None:
    """Each row with what it was made of, its speed and its quality; None without any."""
    mine = sorted(with_quality(rows), key=lambda row: (row.engine, row.model, method(row), share(row)))
    if not mine:
        return None
    exits = ["exit_threshold"] if any(row.exit_threshold is not None for row in mine) else []
    groups = ["weight_group_size"] if any(row.weight_group_size is not None for row in mine) else []
    formats = ["weight_dtype", *groups]
    told_keys = ("engine", "model", "hw", "phase", "batch_size", "pruning", *exits, *formats)
    columns = [Column(key) for key in told_keys]
    at = len(columns) - len(formats)
    columns[at:at] = [Column("by")]
    columns[2:2] = [Column("checkpoint")]
    columns += [Column(key) for key in FIGURES]
    lines = []
    for row in mine:
        told = {key: getattr(row, key) for key in told_keys}
        figures = {key: getattr(row, key) for key in FIGURES}
        by = row.details.get("pruning_by", "magnitude") if row.pruning else None
        lines.append({**told, "checkpoint": named(row, "checkpoint") or None, "by": by, **figures})
    note = (
        "KL and agreement are against the whole model in float32, or the teacher where one is named; perplexity is on "
        f"held-out text{_of_text(mine)}. All three are of the weights as the number format holds them, computed in "
        "float32 on one device. The last column is the timed program's own KL to the same weights before they are "
        "rounded: what all number formats and the order of sums add, on the tokens that it made."
    )
    return Table(name="quality", caption="Speed and quality of smaller models", columns=columns, rows=lines, note=note)


def _of_text(rows: Sequence[Row]) -> str:
    """The files' names: `` (held-out.txt; teacher: large)``."""
    texts = sorted({named(row, "text") for row in rows} - {""})
    teachers = sorted({named(row, "teacher") for row in rows} - {""})
    known = [*texts, *([f"teacher: {', '.join(teachers)}"] if teachers else [])]
    return f" ({'; '.join(known)})" if known else ""


def quality_figure(rows: Sequence[Row]) -> Drawn | None:
    """Perplexity, or KL where no text was read, over tokens/s; a panel an engine, one colour a method; None with fewer
    than two points.
    """
    mine = with_quality(rows)
    key = "quality_perplexity" if any(row.quality_perplexity is not None for row in mine) else "quality_kl"
    engines = of_one_setting([row for row in mine if getattr(row, key) is not None])
    shown = [row for each in engines.values() for row in each]
    if len(shown) < 2:
        return None
    figure, axes = panels(len(engines), width=5.4, height=4.8, share_y=True)
    methods = list(dict.fromkeys(map(family, sorted(shown, key=lambda row: (bool(row.pruning), family(row))))))
    looks = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(methods)}
    for axis, (engine, each) in zip(axes, engines.items(), strict=True):
        _draw(axis, each, key, looks)
        axis.set_title(engine)
        axis.set_xlabel("tokens/s")
    text = _of_text(shown)
    axes[0].set_ylabel("perplexity of held-out text, a token" if key == "quality_perplexity" else KL_LABEL)
    marks = [("chosen by magnitude", "o"), ("chosen by activations", "s")] if any(map(by_activation, shown)) else []
    legend(figure, list(looks.items()), [], marks)
    first = shown[0]
    caption = (
        f"Measured {first.phase} on {counted(first.num_chips, 'device')} of {first.hw}, batch {first.batch_size}, "
        f"{first.input_len} tokens in, {first.output_len} out: speed against quality of whole and changed models, by "
        "engine; beside a mark, the share that was left out or the number format; a line joins the shares of one way "
        "to choose, and dashed lines cross at the model of the least "
        f"{'perplexity' if key == 'quality_perplexity' else 'KL'}. Right and down is better. Quality is of the weights "
        f"as the number format holds them, on held-out text{text}."
    )
    return Drawn("quality_over_speed", caption, figure)


def _draw(axis: "Axes", rows: Sequence[Row], key: str, looks: Mapping[str, str]) -> None:
    """One engine's points, joined where only the share that was left out differs."""
    best = min(rows, key=lambda row: (getattr(row, key), -_speed(row)))
    for line, at in ((axis.axvline, _speed(best)), (axis.axhline, getattr(best, key))):
        line(at, color="#999999", linestyle="--", linewidth=0.8, zorder=1)
    # Number formats lie near each other, and their names are long: every second one stands below its mark.
    below = sorted((row for row in rows if not row.pruning and share(row)), key=_speed)[1::2]
    joined: dict[tuple[str, bool, str], list[Row]] = defaultdict(list)
    for row in rows:
        joined[family(row), by_activation(row), "" if row.pruning else method(row)].append(row)
    for (name, activation, _), unsorted in joined.items():
        ours = sorted(unsorted, key=share)
        colour, marker = looks[name], "s" if activation else "o"
        places = [(_speed(row), getattr(row, key)) for row in ours]
        axis.plot(*zip(*places, strict=True), marker=marker, markersize=6.5, linewidth=0.8, color=colour)
        for row, place in zip(ours, places, strict=True):
            beside = (6, -10) if activation or row in below else (6, 5)
            axis.annotate(share(row), place, xytext=beside, textcoords="offset points", fontsize=7, color=colour)
    axis.set_xscale("log")
    axis.set_yscale("log")
    plain_log_ticks(axis.xaxis)
    plain_log_ticks(axis.yaxis)
