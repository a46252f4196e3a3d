"""Today's architectures beside each other: cost of a token over its latency, how each is split and what binds it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, log
from typing import Any, Final

from bench.report.main.findings import Finding
from bench.report.render.style import COLOURS, KINDS, Drawn, plain_log_ticks
from bench.rows.frontier import frontier, time_of
from bench.rows.labels import answered, layout_label, model_label, parallelism
from bench.rows.table import Column, Table
from engines.core.row import Row
from engines.core.text import significant

SWEEP: Final = "architectures"
TERMS: Final[Mapping[str, tuple[str, str]]] = {
    "compute_s": ("compute", "s"),
    "memory_s": ("memory", "o"),
    "communication_s": ("links", "^"),
    "overhead_s": ("fixed costs", "D"),
}
"""Term of a row → its name and its marker."""
COLUMNS: Final = 4
STEP_LIMIT_S: Final = 0.05
"""Twenty tokens a second: somewhat faster than one reads."""
DENSE: Final = "palm-62b"
SPARSE: Final = "palm-switch-16x62b"


def of_sweep(rows: Sequence[Row]) -> list[Row]:
    """The rows of the sweep with a time and a cost, of every kind of evidence, without those about experts alone."""
    own = [row for row in rows if row.sweep == SWEEP and answered(row) and row.cost_chip_s_per_token is not None]
    return [row for row in own if row.model not in (DENSE, SPARSE)]


def binding(row: Row) -> str | None:
    """The largest of a row's terms; None where it states none."""
    known = {name: getattr(row, name) for name in TERMS if getattr(row, name) is not None}
    return max(known, key=lambda name: known[name]) if known else None


def architectures_figure(rows: Sequence[Row]) -> Drawn | None:
    """One panel a chip, one frontier a model and kind of evidence, the marker says what binds; None without rows."""
    mine = of_sweep(rows)
    if not mine:
        return None
    from matplotlib.figure import Figure

    chips = list(dict.fromkeys(row.hw for row in mine))
    colours = dict(zip(sorted({row.model for row in mine}), COLOURS, strict=False))
    columns = min(COLUMNS, len(chips))
    deep = -(-len(chips) // columns)
    figure = Figure(figsize=(3.6 * columns + 2.4, 3.4 * deep), layout="constrained")
    axes = figure.subplots(deep, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, hw in zip(axes, chips, strict=False):
        for (model, kind), best in _frontiers([row for row in mine if row.hw == hw]).items():
            _line(axis, best, kind, colours[model])
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(f"{hw}, {_counts([row for row in mine if row.hw == hw])}")
    for axis in axes[len(chips) :]:
        axis.set_visible(False)
    for axis in axes[: len(chips)]:
        plain_log_ticks(axis.xaxis)
        plain_log_ticks(axis.yaxis)
    for place, axis in enumerate(axes[: len(chips)]):
        if place % columns == 0:
            axis.set_ylabel("cost (chip-ms/token)")
        if place + columns >= len(chips):
            axis.set_xlabel("decode step (ms)")
            axis.tick_params(labelbottom=True)
    _legend(figure, colours, sorted({row.source for row in mine}))
    row = mine[0]
    caption = (
        f"Cost of a token over the time of a decode step, {row.input_len} tokens cached, {row.output_len} generated, "
        f"{row.weight_dtype} weights: frontiers over batches, numbers of GPUs and ways to split. The marker says which "
        "term is the largest."
    )
    return Drawn(SWEEP, caption, figure)


def _frontiers(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    kinds = dict.fromkeys((row.model, row.source) for row in rows)
    return {kind: frontier([row for row in rows if (row.model, row.source) == kind]) for kind in sorted(kinds)}


def _line(axis: Any, best: Sequence[Row], kind: str, colour: str) -> None:
    x, y = [1e3 * (time_of(row) or 0) for row in best], [1e3 * (row.cost_chip_s_per_token or 0) for row in best]
    axis.plot(x, y, color=colour, linestyle=KINDS[kind]["linestyle"], linewidth=1.2)
    for row, step, cost in zip(best, x, y, strict=True):
        marker = TERMS[binding(row) or "memory_s"][1]
        face = colour if KINDS[kind]["filled"] else "white"
        axis.plot([step], [cost], marker=marker, markersize=4.6, color=colour, markerfacecolor=face, linestyle="")


def _counts(rows: Sequence[Row]) -> str:
    counts = sorted({row.num_chips for row in rows})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _legend(figure: Any, colours: Mapping[str, str], kinds: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=3, label=model_label(model)) for model, colour in colours.items()]
    grey: dict[str, Any] = {"color": "#555555", "markerfacecolor": "white"}
    handles.append(Line2D([], [], linestyle="", label=" "))
    handles += [
        Line2D([], [], linestyle="", marker=marker, label=f"bound by {name}", **grey) for name, marker in TERMS.values()
    ]
    handles += [Line2D([], [], linestyle=KINDS[kind]["linestyle"], label=kind, **grey) for kind in kinds]
    figure.legend(handles=handles, loc="outside right upper")


def architectures_table(rows: Sequence[Row]) -> Table | None:
    """Every point of the frontiers: how it is split, what binds it, what it costs."""
    cells = []
    for row in (row for best in _all_frontiers(rows) for row in best):
        cells.append(
            {
                **{key: getattr(row, key) for key in ("model", "hw", "num_chips", "batch_size", "source")},
                "split": split_label(row),
                "step_time_s": time_of(row),
                "cost_chip_s_per_token": row.cost_chip_s_per_token,
                "bound_by": TERMS[binding(row) or "memory_s"][0],
                "mfu": row.mfu,
                "peak_hbm_bytes": row.peak_hbm_bytes,
            }
        )
    if not cells:
        return None
    columns = [
        *(Column("model"), Column("hw", "chip"), Column("num_chips", "chips"), Column("batch_size", "batch")),
        *(Column("source"), Column("split", "split")),
        Column("step_time_s", "step (ms)", 1e3, ".4g"),
        Column("cost_chip_s_per_token", "cost (chip-ms/token)", 1e3, ".4g"),
        *(Column("bound_by", "bound by"), Column("mfu", "MFU (%)", 100.0, ".1f")),
        Column("peak_hbm_bytes", "GB/chip", 1e-9, ".1f"),
    ]
    return Table(name="architectures", caption="Today's architectures: the frontiers", columns=columns, rows=cells)


def _all_frontiers(rows: Sequence[Row]) -> list[list[Row]]:
    mine = of_sweep(rows)
    chips = dict.fromkeys(row.hw for row in mine)
    return [best for hw in chips for best in _frontiers([row for row in mine if row.hw == hw]).values()]


def split_label(row: Row) -> str:
    """How a row's model is split: ``4×4×4, ws_2d, attention by batch, experts xyz``, ``PP2/TP8, dp8, ep8``."""
    if row.tensor_parallel is not None:
        words = [parallelism(row.tensor_parallel, row.pipeline_parallel)]
    else:
        words = ["×".join(map(str, row.mesh_shape or ())), layout_label(row)]
    words += [f"dp{row.data_parallel}"] if row.data_parallel else []
    words += [f"ep{row.expert_parallel}"] if row.expert_parallel else []
    words += [row.latent_attention] if row.latent_attention not in (None, "auto") else []
    words += [f"experts {row.expert_axes}"] if row.expert_axes not in (None, "auto") else []
    words += ["all-to-all"] if row.expert_dispatch == "all_to_all" else []
    return ", ".join(filter(None, words))


def architectures_findings(rows: Sequence[Row]) -> list[Finding]:
    """The cheapest token of each model within STEP_LIMIT_S on each chip, and what experts buy."""
    return [each for each in (_cheapest(rows), _experts(rows)) if each is not None]


def _cheapest(rows: Sequence[Row]) -> Finding | None:
    numbers: dict[str, float] = {}
    kinds = _sources(of_sweep(rows))
    for best in _all_frontiers(rows):
        fast = [row.cost_chip_s_per_token or 0 for row in best if (time_of(row) or 0) <= STEP_LIMIT_S]
        if fast:
            kind = f", {best[0].source}" if len(kinds) > 1 else ""
            numbers[f"{model_label(best[0].model)} on {best[0].hw}{kind}"] = min(fast)
    if len(numbers) < 2:
        return None
    least = min(numbers, key=lambda name: numbers[name])
    cost = significant(1e3 * numbers[least])
    sentence = f"Within {1e3 * STEP_LIMIT_S:g} ms a step the cheapest token is that of {least}: {cost} chip-ms."
    return Finding("today's architectures", kinds, sentence, numbers)


def experts_table(rows: Sequence[Row]) -> Table | None:
    """PaLM 62B and its Switch at each batch: step, cost, and the batch at which the dense model costs as much."""
    pairs = _pairs(rows)
    if not pairs:
        return None
    cells = []
    for batch, (dense, sparse) in pairs.items():
        equal = equal_cost(rows, sparse)
        cells.append(
            {
                "batch_size": batch,
                "dense_step_s": time_of(dense),
                "dense_cost": dense.cost_chip_s_per_token,
                "sparse_step_s": time_of(sparse),
                "sparse_cost": sparse.cost_chip_s_per_token,
                "ratio": _ratio(sparse, dense),
                "equal_batch": None if equal is None else equal[0],
                "equal_step_s": None if equal is None else equal[1],
                "split": split_label(sparse),
            }
        )
    return Table(
        name="experts",
        caption=f"What 16 experts do to a token of PaLM 62B on {next(iter(pairs.values()))[0].num_chips} TPU v4",
        columns=[
            *(Column("batch_size", "batch"), Column("dense_step_s", "62B step (ms)", 1e3, ".3g")),
            Column("dense_cost", "62B (chip-ms/token)", 1e3, ".3g"),
            Column("sparse_step_s", "16×62B step (ms)", 1e3, ".3g"),
            Column("sparse_cost", "16×62B (chip-ms/token)", 1e3, ".3g"),
            Column("ratio", "16×62B / 62B", 1.0, ".2f"),
            Column("equal_batch", "62B batch of equal cost", 1.0, ".3g"),
            Column("equal_step_s", "its step (ms)", 1e3, ".3g"),
            Column("split", "16×62B split"),
        ],
        rows=cells,
        note="The batch at which the 62B costs as much as the 16×62B of the line is interpolated between batches.",
    )


def _pairs(rows: Sequence[Row]) -> dict[int, tuple[Row, Row]]:
    mine = [row for row in rows if row.sweep == SWEEP and answered(row) and row.cost_chip_s_per_token]
    dense, sparse = ({row.batch_size: row for row in mine if row.model == model} for model in (DENSE, SPARSE))
    return {batch: (dense[batch], sparse[batch]) for batch in sorted(dense.keys() & sparse.keys())}


def _ratio(sparse: Row, dense: Row) -> float:
    return (sparse.cost_chip_s_per_token or 0) / (dense.cost_chip_s_per_token or 1)


def equal_cost(rows: Sequence[Row], sparse: Row) -> tuple[float, float] | None:
    """Batch and seconds of a step at which the dense model costs as much as ``sparse``, None beyond its batches.

    Between two batches the logarithms of cost, batch and step are taken as linear.
    """
    wanted = log(sparse.cost_chip_s_per_token or 1)
    dense = [pair[0] for pair in _pairs(rows).values()]
    for before, after in pairwise(dense):
        high, low = (log(row.cost_chip_s_per_token or 1) for row in (before, after))
        if low <= wanted <= high and high > low:
            share = (high - wanted) / (high - low)
            ends = [(log(row.batch_size), log(time_of(row) or 1)) for row in (before, after)]
            batch, step = (one + share * (other - one) for one, other in zip(*ends, strict=True))
            return exp(batch), exp(step)
    return None


def _experts(rows: Sequence[Row]) -> Finding | None:
    pairs = _pairs(rows)
    if len(pairs) < 2:
        return None
    most = max(pairs)
    ratios = {batch: _ratio(sparse, dense) for batch, (dense, sparse) in pairs.items()}
    numbers: dict[str, Any] = {f"batch {batch}.ratio": ratio for batch, ratio in ratios.items()}
    sentence = f"With 16 experts a token of PaLM 62B costs {ratios[most]:.2f} times as much at batch {most}."
    equal = equal_cost(rows, pairs[most][1])
    if equal is not None:
        step = time_of(pairs[most][1]) or 0.0
        numbers |= {"equal.batch": equal[0], "equal.step_s": equal[1], "sparse.step_s": step}
    return Finding("what experts buy", _sources([row for pair in pairs.values() for row in pair]), sentence, numbers)


def _sources(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(sorted({row.source for row in rows}))
