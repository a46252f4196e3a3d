"""What each study found: one sentence with one figure from its compiled rows, and all figures as numbers.

A function returns None where the rows that it compares are missing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from bench.report.studies.rows import parts_of
from bench.rows.error_stats import error_stats, relative_error
from bench.rows.frontier import time_of
from bench.rows.labels import model_label
from engines.core.layout import VARIANTS
from engines.core.row import Row
from engines.core.text import significant
from engines.published.table import published_rows

Found = tuple[str, dict[str, Any]]
"""A sentence and the numbers behind it."""
WORKLOAD: Final = ("model", "hw", "num_chips", "phase", "batch_size", "weight_dtype")
"""Keys in which a published row must agree with the row that it is compared with."""
OVERLAPPED: Final = tuple(name for name, variant in VARIANTS.items() if variant.looped)
Key = TypeVar("Key")


def against_published(rows: Sequence[Row]) -> Found | None:
    """Mean error of the times against the published ones of the same context."""
    numbers, errors = dict[str, Any](), list[float]()
    for row in _timed(rows):
        seconds, parts, published = time_of(row) or 0.0, parts_of(row), published_s(row)
        error = relative_error(seconds, published)
        steps = "one step" if row.output_len == 1 else f"{row.output_len} steps"
        name = f"{row.phase}, batch {row.batch_size}, {row.weight_dtype}" + (f", {steps}" if row.output_len else "")
        numbers[f"{name}.s"] = seconds
        if error is not None:
            errors.append(error)
            numbers |= {f"{name}.published_s": published, f"{name}.relative": error}
        if parts is not None:
            numbers[f"{name}.bound_by"] = parts.bound_by
    stats = error_stats(errors)
    if stats is None:
        return None
    numbers |= {"mean": stats.mean, "worst": stats.worst, "bias": stats.bias}
    # The programs overlap more than the paper's do, so the sign matters where all errors have the same.
    differ = "differ from" if abs(stats.bias) < stats.mean else "are shorter than" if stats.bias < 0 else "exceed"
    sentence = f"Compiled times {differ} the published ones by {stats.mean:.1%} on average over {stats.n} points."
    return sentence, numbers


def published_s(row: Row) -> float | None:
    """Published time of the row's phase at its context: of a decode step, or of a prefill. None where there is none."""
    for each in published_rows():
        question = each.stated
        same = all(question[key] == getattr(row, key) for key in WORKLOAD)
        context = question["input_len"] + question["output_len"]
        if (
            same
            and context == _context(row)
            and each.latency_s
            and question.get("ffn_layout") in (None, row.ffn_layout)
        ):
            return each.latency_s / (question["output_len"] if row.phase == "decode" else 1)
    return None


def link_constants(rows: Sequence[Row]) -> str:
    """The constants of the link model behind the rows' times, and the published rows that set them; "" without any."""
    sentences: dict[str, None] = {}
    for row in rows:
        constants = row.details.get("constants", {})
        if constants.get("set_by"):
            rows_of_fit = "; ".join(constants["set_by"])
            sentences[
                f"The link model reaches {constants['link_efficiency']:.0%} of a torus link's bandwidth and takes "
                f"{significant(1e6 * constants['hop_s'])} µs a hop. Both constants were fitted to {rows_of_fit}: "
                "agreement with these rows does not check the model; agreement with other published rows does."
            ] = None
    return " ".join(sentences)


def layouts_over_chips(rows: Sequence[Row]) -> Found | None:
    """The number of chips from which 2D is the faster layout, for each model; the sentence is on the largest."""
    sentence, numbers = "", dict[str, Any]()
    for model, mine in _grouped(rows, lambda row: row.model).items():
        by_chips = _grouped(mine, lambda row: row.num_chips)
        ratios = {chips: _ratio(pair, "ffn_layout", "ws_1d", "ws_2d") for chips, pair in sorted(by_chips.items())}
        known = {chips: ratio for chips, ratio in ratios.items() if ratio is not None}
        if not known:
            continue
        slower = [chips for chips, ratio in known.items() if ratio <= 1]
        faster = [chips for chips in known if not slower or chips > max(slower)]
        sentence = (
            f"2D is faster than 1D from {min(faster)} chips on for {model_label(model)}."
            if faster
            else f"1D is at least as fast as 2D up to {max(known)} chips for {model_label(model)}."
        )
        numbers |= {f"{model}.{chips}": ratio for chips, ratio in known.items()}
        numbers[f"{model}.from_chips"] = min(faster) if faster else None
    return (sentence, numbers) if sentence else None


def prefill_layouts(rows: Sequence[Row]) -> Found | None:
    """The highest MFU, and the number of tokens from which each layout is the fastest of several."""
    timed = [row for row in _timed(rows) if row.mfu is not None]
    if not timed:
        return None
    best = max(timed, key=lambda row: row.mfu or 0)
    numbers: dict[str, Any] = {"best_mfu": best.mfu, "best_tokens": _tokens(best), "best_layout": best.ffn_layout}
    options = _grouped(rows, _tokens)
    fastest = {
        tokens: str(min(mine, key=lambda row: time_of(row) or 0).ffn_layout)
        for tokens, mine in sorted(_grouped(timed, _tokens).items())
        if len({row.ffn_layout for row in options[tokens]}) > 1
    }
    changes = {
        tokens: layout
        for (tokens, layout), before in zip(fastest.items(), [None, *fastest.values()], strict=False)
        if layout != before
    }
    if changes:
        numbers["fastest_from"] = {str(tokens): layout for tokens, layout in changes.items()}
    refused = [_tokens(row) for row in rows if row.status == "oom" and row.ffn_layout == "ws_2d"]
    if refused:
        numbers["ws_2d_refused_from"] = min(refused)
    return f"The highest MFU is {best.mfu:.1%}, with {best.ffn_layout} at {_tokens(best):,} tokens.", numbers


def attention_over_context(rows: Sequence[Row], line: Callable[[Row], str]) -> Found | None:
    """The longest context of each variant, and the share of its steps that came with the context."""
    longest, numbers = dict[str, int](), dict[str, Any]()
    for name, mine in sorted(_grouped(rows, line).items()):
        timed = sorted(_timed(mine), key=_context)
        if len(timed) < 2:
            continue
        first, last = timed[0], timed[-1]
        longest[name] = _context(last)
        numbers |= {f"{name}.longest": _context(last), f"{name}.step_s": time_of(last)}
        for row in timed[1:]:
            numbers[f"{name}.beyond.{_context(row)}"] = 1 - (time_of(first) or 0) / (time_of(row) or 1)
    if not longest:
        return None
    most = max(longest.values())
    names = " and ".join(name for name, context in longest.items() if context == most)
    return f"The longest context that fits is {most:,} tokens ({names}).", numbers


def sequence_over_heads(rows: Sequence[Row], line: Callable[[Row], str]) -> Found | None:
    """Time of a step with attention over heads, or the cache on every chip, over that with it over the sequence.

    The sentence is on the longest context that the two of a model have a time for, where the ratio is largest.
    """
    numbers, longest = dict[str, Any](), dict[str, tuple[int, float]]()
    for row in _timed(rows):
        numbers[f"{line(row)}.{_context(row)}.s"] = time_of(row)
    for model, mine in _grouped(rows, lambda row: row.model).items():
        for context, pair in sorted(_grouped(_timed(mine), _context).items()):
            by = {str(row.attn_sharding): time_of(row) or 0.0 for row in pair}
            sequence = by.pop("sequence", 0.0)
            if by and sequence:
                longest[model] = context, min(by.values()) / sequence
                numbers[f"{model}.{context}.ratio"] = longest[model][1]
    if not longest:
        return None
    model, (context, ratio) = max(longest.items(), key=lambda each: each[1][1])
    sentence = (
        f"Attention over the sequence takes a step of {model_label(model)} at {context:,} tokens to 1/{ratio:.1f}."
    )
    return sentence, numbers


def serial_over_parallel(rows: Sequence[Row]) -> Found | None:
    """Time of a step of the serial block over that of the parallel one, by batch; the sentence is on the largest."""
    ratios = {
        batch: ratio
        for batch, mine in sorted(_grouped(rows, lambda row: row.batch_size).items())
        if (ratio := _ratio(mine, "model", "palm-540b-serial", "palm-540b")) is not None
    }
    if not ratios:
        return None
    last = max(ratios)
    numbers = {f"batch_{batch}": ratio - 1 for batch, ratio in ratios.items()}
    return f"The serial block takes {ratios[last]:.2f}× the time of the parallel one at batch {last}.", numbers


def overlapped_plain_gspmd(rows: Sequence[Row], panel: Callable[[Row], str]) -> Found | None:
    """Plain and compiler-partitioned collectives over the best overlapped ones, by workload; the largest ratio."""
    numbers, ratios = dict[str, Any](), dict[tuple[str, str], float]()
    for name, mine in _grouped(rows, panel).items():
        manual = [row for row in mine if row.partitioner == "manual"]
        overlapped = [row for row in _timed(manual) if row.collectives in OVERLAPPED]
        if not overlapped:
            continue
        best = min(overlapped, key=lambda row: time_of(row) or 0)
        others = {
            "plain": [row for row in manual if row.collectives == "plain"],
            "GSPMD": [row for row in mine if row.partitioner == "gspmd"],
        }
        for other, theirs in others.items():
            timed = _timed(theirs)
            if timed:
                ratio = (time_of(timed[0]) or 0) / (time_of(best) or 1)
                ratios[name, other] = numbers[f"{name}.{other}"] = ratio
            elif any(row.status == "oom" for row in theirs):
                numbers[f"{name}.{other}"] = "oom"
    if not ratios:
        return None
    name, other = max(ratios, key=lambda each: ratios[each])
    return f"{other} takes up to {ratios[name, other]:.2f}× the time of overlapped collectives ({name}).", numbers


def against_peers(rows: Sequence[Row], panel: Callable[[Row], str]) -> Found | None:
    """Our time over that of the fastest peer and of GSPMD, by model, chip and batch; the sentence is on the range.

    Rows of other libraries than ours are compared as they are: each row names its compiler.
    """
    numbers, ratios = dict[str, Any](), list[float]()
    for name, mine in _grouped(rows, panel).items():
        label = " on ".join(name.split("\n"))
        ours = [row for row in mine if row.engine == "compiled" and row.partitioner != "gspmd"]
        peers = [row for row in mine if row.engine != "compiled"]
        for row in _timed([*ours, *peers]):
            parts = parts_of(row)
            who = "shardbench" if row.engine == "compiled" else row.engine
            numbers[f"{label}.{who}.s"] = time_of(row)
            if parts is not None:
                numbers[f"{label}.{who}.waits_for"] = parts.bound_by
        best = min((time_of(row) or 0 for row in _timed(peers)), default=None)
        own = min((time_of(row) or 0 for row in _timed(ours)), default=None)
        if best and own:
            ratios.append(own / best)
            numbers[f"{label}.ratio"] = own / best
    if not ratios:
        return None
    low, high = significant(min(ratios)), significant(max(ratios))
    span = f"{low}×" if low == high else f"{low}× to {high}×"
    return f"A step of ours takes {span} the time of the fastest peer's.", numbers


def int8_over_bfloat16(rows: Sequence[Row]) -> Found | None:
    """Time with bfloat16 weights over that with int8, by phase and batch; the sentence is on the largest ratio."""
    ratios: dict[tuple[str, int], float] = {}
    for (phase, batch), pair in _grouped(rows, lambda row: (row.phase, row.batch_size)).items():
        ratio = _ratio(pair, "weight_dtype", "bfloat16", "int8")
        if ratio is not None:
            ratios[phase, batch] = ratio
    if not ratios:
        return None
    phase, batch = max(ratios, key=lambda each: ratios[each])
    sentence = f"bfloat16 weights take up to {ratios[phase, batch]:.2f}× the time of int8 ({phase}, batch {batch})."
    return sentence, {f"{phase}.{batch}": ratio for (phase, batch), ratio in ratios.items()}


def generations(rows: Sequence[Row]) -> Found | None:
    """The step on every generation; the sentence is on the fastest one of the first model."""
    sentences, numbers = [], dict[str, Any]()
    for model, mine in _grouped(rows, lambda row: row.model).items():
        timed = sorted(_timed(mine), key=lambda row: time_of(row) or 0)
        numbers |= {f"{model}.{row.hw}": time_of(row) for row in timed}
        if timed:
            best = timed[0]
            sentences.append(
                f"{model_label(model)} decodes fastest on {best.num_chips} {best.hw}, "
                f"at {significant(1e3 * (time_of(best) or 0))} ms a step."
            )
    return (sentences[0], numbers) if sentences else None


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
