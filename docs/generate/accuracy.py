"""The page on accuracy: stored answers beside published ones, from the rows in the repository."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import yaml
from metrics import escaped

from bench.report.main.figure_scatter import against_published
from bench.report.main.figure_today import by_chip_and_runtime
from bench.report.main.today import by_key, compared, inside_interval, left_out_stats
from bench.report.render import style
from bench.rows.error_stats import ErrorStats
from bench.rows.labels import SOURCES, model_label, read_rows
from bench.rows.pairing import Pair, pair_errors, pair_up
from engines.core.row import Row

ROOT: Final = Path(__file__).parents[2]
STORES: Final = ("results/reference", "results/studies")
CONSTANTS: Final = ROOT / "engines/analytic/constants"
RUNTIMES: Final = ROOT / "conf/runtime"
STACKS: Final = "predicted_over_published"
TEXT: Final = ROOT / "docs/generate/accuracy.md"


def page() -> str:
    """``accuracy.md``: the written frame of the page with its tables filled in."""
    text = TEXT.read_text(encoding="utf-8")
    parts = {
        "evidence": _evidence(),
        "stacks": _stacks(),
        "errors": _errors(),
        "oom": _oom(),
        "worst": _worst(),
        "held_out": _held_out(),
        "constants": _constants(),
        "compiled": _compiled(),
        "measured": _measured(),
    }
    for name, lines in parts.items():
        text = text.replace(f"{{{{ {name} }}}}", "\n".join(lines))
    return text


def figures() -> dict[str, bytes]:
    """Path → content of the page's figures; that of the stacks only where rows were asked by runtime.

    Raises:
        LookupError: no stored row answers a published one.
    """
    with style.settings():
        drawn = {"against_published": against_published(_pairs()), STACKS: by_chip_and_runtime(compared(_pairs()))}
        if drawn["against_published"] is None:
            raise LookupError(f"{', '.join(STORES)}: no row answers what a published row asks")
        return {f"assets/{name}.png": _png(each) for name, each in drawn.items() if each is not None}


def _png(drawn: style.Drawn) -> bytes:
    image = BytesIO()
    drawn.figure.savefig(image, format="png", dpi=160, metadata={"Software": None})
    return image.getvalue()


@cache
def _rows() -> tuple[Row, ...]:
    return tuple(row for store in STORES for row in read_rows(str(ROOT / store)))


@cache
def _pairs() -> list[Pair]:
    return pair_up(_rows())


def _table(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(heads)
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    yield from (f"| {' | '.join(map(escaped, cells))} |" for cells in lines)


def _evidence() -> Iterator[str]:
    count = Counter((row.source, row.engine, row.hw) for row in _rows())
    status = Counter((row.source, row.engine, row.hw) for row in _rows() if row.status == "ok")
    keys = sorted(count, key=lambda key: (SOURCES.index(key[0]), key[1:]))
    yield from _table(
        ("source", "engine", "chip", "rows", "with a time"),
        ((*key, str(count[key]), str(status[key])) for key in keys),
    )


def _cells(errors: ErrorStats | None) -> list[str]:
    if errors is None:
        return ["0", *[""] * 5]
    sizes = (errors.mean, errors.median, errors.p90, errors.worst)
    return [str(errors.n), *(f"{size:.1%}" for size in sizes), f"{errors.bias:+.1%}"]


def _errors() -> Iterator[str]:
    groups: dict[tuple[str, str, str, str], list[Pair]] = {}
    for pair in _pairs():
        row = pair.answer
        for phase in (row.phase, "all"):
            system = pair.reference.system or "published"
            groups.setdefault((row.engine, system, row.hw, phase), []).append(pair)
        groups.setdefault((row.engine, "all", "all", "all"), []).append(pair)
    phases = Counter(key[:3] for key in groups)
    lines = [
        [*key, *_cells(pair_errors(pairs))]
        for key, pairs in sorted(groups.items())
        if pair_errors(pairs) and (key[3] != "all" or phases[key[:3]] != 2)  # one phase and "all" say the same
    ]
    yield from _table(
        ("engine", "system", "chip", "phase", "rows", "mean", "median", "90th percentile", "worst", "bias"), lines
    )


def _stacks() -> Iterator[str]:
    """The closed forms by chip and runtime, in the fit and with sources left out of it."""
    groups = by_key(compared(_pairs()), lambda each: each.where)
    if not groups:
        yield "No stored row was asked for a runtime yet."
        return
    yield f"![Predicted over published latencies by chip and runtime](assets/{STACKS}.png)"
    yield ""
    lines = []
    for (hw, runtime), rows in groups.items():
        inside, told = inside_interval(rows)
        lines.append(
            [
                *(runtime, hw, *_cells(pair_errors(each.pair for each in rows))),
                _mean(left_out_stats(rows)),
                f"{inside / told:.0%}" if told else "",
            ]
        )
    heads = ("rows", "mean", "median", "90th percentile", "worst", "bias", "source left out", "in the 80% interval")
    yield from _table(("runtime", "chip", *heads), lines)


def _mean(errors: ErrorStats | None) -> str:
    return "" if errors is None else f"{errors.mean:.1%}"


def _oom() -> Iterator[str]:
    told = Counter(
        (pair.answer.engine, pair.reference.status, pair.answer.status)
        for pair in _pairs()
        if "oom" in (pair.reference.status, pair.answer.status)
    )
    yield from _table(
        ("engine", "published", "answered", "points"), ((*key, str(count)) for key, count in sorted(told.items()))
    )


def _worst() -> Iterator[str]:
    timed = [pair for pair in _pairs() if pair.relative_error is not None]
    timed.sort(key=lambda pair: -abs(pair.relative_error or 0))
    yield from _table(
        ("engine", "question", "published (s)", "answered (s)", "error", "source"),
        (
            (
                pair.answer.engine,
                _question(pair.reference),
                f"{pair.reference.latency_s:.4g}",
                f"{pair.answer.latency_s:.4g}",
                f"{pair.relative_error:+.1%}",
                pair.reference.reference or "",
            )
            for pair in timed[:10]
        ),
    )


def _question(row: Row) -> str:
    lengths = f"{row.input_len} in" + (f", {row.output_len} out" if row.output_len else "")
    return f"{model_label(row.model)} on {row.num_chips} {row.hw}, {row.phase}, batch {row.batch_size}, {lengths}"


def _stored(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict), path
    return content


def _held_out() -> Iterator[str]:
    lines = []
    for path in sorted(CONSTANTS.glob("*.yaml")):
        content = _stored(path)
        for source, figures in content.get("leave_one_source_out", {}).items():
            sizes = (figures["mape"], figures["p90_ape"], figures["worst_ape"])
            bias = f"{figures['bias']:+.1%}"
            lines.append([path.stem, source, str(figures["rows"]), *(f"{size:.1%}" for size in sizes), bias])
    yield from _table(("chip", "table left out", "rows", "mean", "90th percentile", "worst", "bias"), lines)


def _constants() -> Iterator[str]:
    lines = []
    for path in sorted(CONSTANTS.glob("*.yaml")):
        content = _stored(path)
        for name, about in content.get("about", {}).items():
            lines.append([path.stem, *_constant(name, {**about, "value": content["constants"][name]})])
    for path in sorted(RUNTIMES.glob("*.yaml")):
        for name, about in (_stored(path).get("constants") or {}).items():
            lines.append([path.stem, *_constant(name, about)])
    yield from _table(("of", "constant", "value", "uncertainty", "prior", "why", "set by"), lines)


def _constant(name: str, about: dict[str, Any]) -> list[str]:
    shares = ", ".join(f"{source} {share:.0%}" for source, share in (about.get("set_by") or {}).items())
    spread = f"{about['uncertainty']:.0%}" if about.get("uncertainty") else "stated"
    prior = "" if about.get("prior") is None else f"{about['prior']:.4g}"
    return [f"`{name}`", f"{float(about['value']):.4g}", spread, prior, about.get("source", ""), shares]


def _compiled() -> Iterator[str]:
    pairs = [pair for pair in _pairs() if pair.answer.source == "compiled" and pair.relative_error is not None]
    yield from _table(
        ("question", "collectives", "published (s)", "compiled (s)", "error"),
        (
            (
                _question(pair.reference),
                str(pair.answer.collectives),
                f"{pair.reference.latency_s:.4g}",
                f"{pair.answer.latency_s:.4g}",
                f"{pair.relative_error:+.1%}",
            )
            for pair in pairs
        ),
    )


def _measured() -> Iterator[str]:
    rows = [row for row in _rows() if row.source == "measured"]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.engine, row.hw, row.weight_dtype), []).append(row)
    yield from _table(
        ("engine", "chip", "weights", "rows", "valid", "largest output error"),
        (
            (*key, str(len(mine)), str(sum(row.valid for row in mine)), f"{_largest_error(mine):.2g}")
            for key, mine in sorted(groups.items())
        ),
    )


def _largest_error(rows: list[Row]) -> float:
    return max((row.max_relative_error or 0.0 for row in rows), default=0.0)
