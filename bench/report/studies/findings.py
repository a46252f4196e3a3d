"""What each study found, in one sentence computed from its compiled rows. None where no two rows can be compared."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from bench.report.studies.rows import parts_of
from bench.rows.frontier import time_of
from bench.rows.labels import model_label
from engines.core.row import Row
from engines.published.table import published_rows

Told = tuple[str, dict[str, Any]]
WORKLOAD: Final = ("model", "hw", "num_chips", "phase", "batch_size", "weight_dtype")
"""Keys in which a published row must agree with a row beside which it stands."""
OVERLAPPED: Final = ("oneway", "throughput", "latency")
Key = TypeVar("Key")


def against_published(rows: Sequence[Row]) -> Told | None:
    """Every row's time beside the published one of the same context, and the parts that it is made of."""
    said, numbers = [], dict[str, Any]()
    for row in _timed(rows):
        seconds, parts = time_of(row) or 0.0, parts_of(row)
        steps = "one step" if row.output_len == 1 else f"{row.output_len} steps"
        name = f"{row.phase}, batch {row.batch_size}, {row.weight_dtype}" + (f", {steps}" if row.output_len else "")
        told, beside = f"{name}: {_short(seconds)}", published_s(row)
        numbers[f"{name}.s"] = seconds
        if beside is not None:
            told += f" (published {_short(beside)}, {seconds / beside - 1:+.1%})"
            numbers |= {f"{name}.published_s": beside, f"{name}.relative": seconds / beside - 1}
        if parts is not None:
            told += (
                f", bound by {parts.bound_by} (memory {_short(parts.memory_s)}, compute {_short(parts.compute_s)}, "
                f"exposed communication {_short(parts.exposed_s)})"
            )
            numbers[f"{name}.bound_by"] = parts.bound_by
        said.append(told)
    return ("; ".join(said) + ".", numbers) if said else None


def published_s(row: Row) -> float | None:
    """What was published of the row's phase at its context: a decode step, or a prefill. None where nothing was."""
    for each in published_rows():
        asked = each.question
        same = all(asked[key] == getattr(row, key) for key in WORKLOAD)
        context = asked["input_len"] + asked["output_len"]
        if same and context == _context(row) and each.latency_s and asked.get("ffn_layout") in (None, row.ffn_layout):
            return each.latency_s / (asked["output_len"] if row.phase == "decode" else 1)
    return None


def links_told(rows: Sequence[Row]) -> str:
    """The constants of the link model behind the rows' times, and the published rows that set them; "" without any."""
    told: dict[str, None] = {}
    for row in rows:
        constants = row.details.get("constants", {})
        if constants.get("set_by"):
            told[
                f"Of a torus link {constants['link_efficiency']:.0%} of the bandwidth is reached and a hop takes "
                f"{1e6 * constants['hop_s']:.3g} µs. These constants were set on {'; '.join(constants['set_by'])}: "
                "beside those the times are no check, beside all other published rows they are."
            ] = None
    return " ".join(told)


def layouts_over_chips(rows: Sequence[Row]) -> Told | None:
    """From how many chips on the two-dimensional layout is the faster, for each model."""
    parts, numbers = [], dict[str, Any]()
    for model, mine in _grouped(rows, lambda row: row.model).items():
        by_chips = _grouped(mine, lambda row: row.num_chips)
        ratios = {chips: _ratio(pair, "ffn_layout", "ws_1d", "ws_2d") for chips, pair in sorted(by_chips.items())}
        known = {chips: ratio for chips, ratio in ratios.items() if ratio is not None}
        if not known:
            continue
        slower = [chips for chips, ratio in known.items() if ratio <= 1]
        faster = [chips for chips in known if not slower or chips > max(slower)]
        last = max(known)
        start = f"2D is the faster from {min(faster)} chips on" if faster else "1D is as fast as 2D or faster"
        parts.append(f"{model_label(model)}: {start} (1D takes {known[last]:.2f}× the time of 2D on {last} chips)")
        numbers |= {f"{model}.{chips}": ratio for chips, ratio in known.items()}
        numbers[f"{model}.from_chips"] = min(faster) if faster else None
    return ("; ".join(parts) + ".", numbers) if parts else None


def prefill_layouts(rows: Sequence[Row]) -> Told | None:
    """The highest MFU, and from how many tokens on which layout is the fastest of several."""
    timed = [row for row in _timed(rows) if row.mfu is not None]
    if not timed:
        return None
    best = max(timed, key=lambda row: row.mfu or 0)
    told = f"The highest MFU is {best.mfu:.1%}, {best.ffn_layout} at {_tokens(best):,} tokens"
    numbers: dict[str, Any] = {"best_mfu": best.mfu, "best_tokens": _tokens(best), "best_layout": best.ffn_layout}
    asked = _grouped(rows, _tokens)
    fastest = {
        tokens: str(min(mine, key=lambda row: time_of(row) or 0).ffn_layout)
        for tokens, mine in sorted(_grouped(timed, _tokens).items())
        if len({row.ffn_layout for row in asked[tokens]}) > 1
    }
    changes = {
        tokens: layout
        for (tokens, layout), before in zip(fastest.items(), [None, *fastest.values()], strict=False)
        if layout != before
    }
    if changes:
        told += "; fastest is " + ", ".join(f"{layout} from {tokens:,} tokens" for tokens, layout in changes.items())
        numbers["fastest_from"] = {str(tokens): layout for tokens, layout in changes.items()}
    refused = [_tokens(row) for row in rows if row.status == "oom" and row.ffn_layout == "ws_2d"]
    if refused:
        told += f"; ws_2d does not fit from {min(refused):,} tokens on"
        numbers["ws_2d_refused_from"] = min(refused)
    return told + ".", numbers


def attention_over_context(rows: Sequence[Row], line: Callable[[Row], str]) -> Told | None:
    """How far every variant gets, and what part of its longer steps came with the context since the shortest one."""
    parts, numbers = [], dict[str, Any]()
    for name, mine in sorted(_grouped(rows, line).items()):
        timed = sorted(_timed(mine), key=_context)
        if len(timed) < 2:
            continue
        first, last = timed[0], timed[-1]
        shares = {_context(row): 1 - (time_of(first) or 0) / (time_of(row) or 1) for row in timed[1:]}
        refused = any(row.status == "oom" and _context(row) > _context(last) for row in mine)
        told = " and ".join(f"{share:.0%} at {context:,}" for context, share in list(shares.items())[-2:])
        parts.append(
            f"{name} fits at {_context(last):,} tokens{' and no further' if refused else ''} "
            f"({_short(time_of(last))} a step; what it takes beyond {_context(first)} tokens is {told})"
        )
        numbers |= {f"{name}.longest": _context(last), f"{name}.step_s": time_of(last)}
        numbers |= {f"{name}.beyond.{context}": share for context, share in shares.items()}
    return ("; ".join(parts) + ".", numbers) if parts else None


def serial_over_parallel(rows: Sequence[Row]) -> Told | None:
    """What the serial block costs beside the parallel one, by batch."""
    ratios = {
        batch: ratio
        for batch, mine in sorted(_grouped(rows, lambda row: row.batch_size).items())
        if (ratio := _ratio(mine, "model", "palm-540b-serial", "palm-540b")) is not None
    }
    if not ratios:
        return None
    told = " and ".join(f"{ratio - 1:+.1%} at batch {batch}" for batch, ratio in ratios.items())
    numbers = {f"batch_{batch}": ratio - 1 for batch, ratio in ratios.items()}
    return f"The serial block changes a decode step by {told}.", numbers


def overlapped_plain_gspmd(rows: Sequence[Row], panel: Callable[[Row], str]) -> Told | None:
    """The best overlapped schedule beside plain collectives and beside the compiler's own partitioning, by workload."""
    parts, numbers = [], dict[str, Any]()
    for name, mine in _grouped(rows, panel).items():
        manual = [row for row in mine if row.partitioner == "manual"]
        overlapped = [row for row in _timed(manual) if row.collectives in OVERLAPPED]
        if not overlapped:
            continue
        best = min(overlapped, key=lambda row: time_of(row) or 0)
        said = []
        for other, theirs in (
            ("plain", [row for row in manual if row.collectives == "plain"]),
            ("GSPMD", [row for row in mine if row.partitioner == "gspmd"]),
        ):
            timed = _timed(theirs)
            if timed:
                ratio = (time_of(timed[0]) or 0) / (time_of(best) or 1)
                said.append(f"{other} {ratio:.2f}× as long")
                numbers[f"{name}.{other}"] = ratio
            elif any(row.status == "oom" for row in theirs):
                said.append(f"{other} does not fit in memory")
                numbers[f"{name}.{other}"] = "oom"
        if said:
            parts.append(f"{name}: overlapped ({best.collectives}) takes {_short(time_of(best))}, {', '.join(said)}")
    return ("; ".join(parts) + ".", numbers) if parts else None


def int8_over_bfloat16(rows: Sequence[Row]) -> Told | None:
    """How much faster int8 weights are, by phase and batch."""
    parts, numbers = [], dict[str, Any]()
    for phase, mine in _grouped(rows, lambda row: row.phase).items():
        ratios = {
            batch: ratio
            for batch, pair in sorted(_grouped(mine, lambda row: row.batch_size).items())
            if (ratio := _ratio(pair, "weight_dtype", "bfloat16", "int8")) is not None
        }
        if ratios:
            told = ", ".join(f"{ratio:.2f}× at batch {batch}" for batch, ratio in ratios.items())
            what = "decode step" if phase == "decode" else phase
            parts.append(f"time of a {what} with bfloat16 weights over that with int8: {told}")
            numbers |= {f"{phase}.{batch}": ratio for batch, ratio in ratios.items()}
    return ("; ".join(parts) + ".", numbers) if parts else None


def generations(rows: Sequence[Row]) -> Told | None:
    """The step on every generation with what bounds it, and how far apart the ends are."""
    parts, numbers = [], dict[str, Any]()
    for model, mine in _grouped(rows, lambda row: row.model).items():
        timed = sorted(_timed(mine), key=lambda row: time_of(row) or 0)
        if not timed:
            continue
        told = []
        for row in timed:
            bound = parts_of(row)
            told.append(f"{row.hw} {1e3 * (time_of(row) or 0):.3g} ms" + (f" ({bound.bound_by})" if bound else ""))
            numbers[f"{model}.{row.hw}"] = time_of(row)
        told += [f"{row.hw} does not fit" for row in mine if row.status == "oom"]
        parts.append(f"{model_label(model)}: {', '.join(told)}")
    return ("; ".join(parts) + ".", numbers) if parts else None


def _short(seconds: float | None) -> str:
    return f"{seconds:.3g} s" if seconds and seconds >= 1 else f"{1e3 * (seconds or 0):.3g} ms"


def _tokens(row: Row) -> int:
    return row.batch_size * row.input_len


def _context(row: Row) -> int:
    return row.input_len + row.output_len


def _timed(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.status == "ok" and time_of(row) is not None]


def _ratio(rows: Sequence[Row], key: str, above: str, below: str) -> float | None:
    """Time of the row whose ``key`` is ``above`` over that whose is ``below``; None where either has none."""
    times = {getattr(row, key): time_of(row) for row in _timed(rows)}
    high, low = times.get(above), times.get(below)
    return high / low if high is not None and low else None


def _grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)
