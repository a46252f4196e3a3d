"""The paper's claims as checks: the figure that it states, the figure of the rows, and whether they agree."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from bench.report.claims.contenders import LENGTHS, PALM, TP16, TP32, Contender, is_evidence
from bench.rows.labels import SOURCES, by_source
from bench.rows.table import Column, Table
from engines.core.row import Row
from engines.core.text import significant

ESTIMATE_TOLERANCE: Final = 0.15
"""Relative tolerance of a claim for rows that are not published ones."""
Relation = Literal["equals", "at most", "at least"]
Measure = Callable[[Sequence[Row]], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """``stated`` in the unit of the metric, with the ``rounding`` of the printed figures in the same unit.

    ``measure`` takes rows with a valid time, of one kind and engine, and returns None where the rows that it needs are
    missing.
    """

    text: str
    stated: float
    rounding: float
    unit: Literal["s", "fraction", "ratio"]
    measure: Measure
    relation: Relation = "equals"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A claim evaluated on one kind of evidence. ``passed`` is None without the rows that it needs."""

    claim: Claim
    source: str
    engine: str
    value: float | None
    tolerance: float
    passed: bool | None


def check_claims(rows: Sequence[Row]) -> list[Check]:
    """Every claim on every kind of evidence and engine that has its rows; one undecided check where none has."""
    kinds = sorted({(row.source, row.engine) for row in rows}, key=lambda kind: (-SOURCES.index(kind[0]), kind[1]))
    groups = {
        (source, engine): [row for row in by_source(rows, source) if row.engine == engine and is_evidence(row)]
        for source, engine in kinds
    }
    checks = []
    for claim in CLAIMS:
        mine = [_check(claim, kind, group) for kind, group in groups.items()]
        decided = [check for check in mine if check.passed is not None]
        checks += decided or [Check(claim=claim, source="", engine="", value=None, tolerance=0.0, passed=None)]
    return checks


def claims_table(checks: Sequence[Check]) -> Table:
    """A line a claim, with the figure and the result of each kind of evidence; the CSV has a line a check."""
    by_claim: dict[str, list[Check]] = {}
    for check in checks:
        by_claim.setdefault(check.claim.text, []).append(check)
    kinds = list(dict.fromkeys(_kind(check) for check in checks if check.passed is not None))
    shown: list[dict[str, Any]] = []
    for text, mine in by_claim.items():
        claim = mine[0].claim
        bound = "" if claim.relation == "equals" else f"{claim.relation} "
        cells = {_kind(check): f"{_shown(claim, check.value)} {_result(check)}" for check in mine}
        shown.append({"claim": text, "paper": f"{bound}{_shown(claim, claim.stated)}", **cells})
    return Table(
        name="claims",
        caption="Claims of Pope et al. 2022 against the rows",
        columns=[Column("claim"), Column("paper"), *(Column(kind) for kind in kinds)],
        rows=[_plain(check) for check in checks],
        shown=shown,
        note=(
            "Published rows must agree within the rounding of the printed figures; others within "
            f"{ESTIMATE_TOLERANCE:.0%} of the claim, or hold it where it is a bound."
        ),
        csv_keys=(
            "claim",
            "relation",
            "stated_value",
            "found_value",
            "tolerance_value",
            "unit",
            "source",
            "engine",
            "result",
        ),
    )


def _plain(check: Check) -> dict[str, Any]:
    return {
        "claim": check.claim.text,
        "relation": check.claim.relation,
        "stated_value": check.claim.stated,
        "found_value": check.value,
        "tolerance_value": check.tolerance,
        "unit": check.claim.unit,
        "source": check.source,
        "engine": check.engine,
        "result": _result(check),
    }


def _result(check: Check) -> str:
    return "no rows" if check.passed is None else "pass" if check.passed else "FAIL"


def _kind(check: Check) -> str:
    return check.source if check.source == "published" else f"{check.source}, {check.engine}"


def _check(claim: Claim, kind: tuple[str, str], rows: Sequence[Row]) -> Check:
    source, engine = kind
    value = claim.measure(rows)
    exact = source == "published" or claim.relation != "equals"
    tolerance = claim.rounding if exact else ESTIMATE_TOLERANCE * claim.stated
    passed = None
    if value is not None:
        off = value - claim.stated
        limit = tolerance + 1e-9
        passed = {"equals": abs(off) <= limit, "at most": off <= limit, "at least": off >= -limit}[claim.relation]
    return Check(claim=claim, source=source, engine=engine, value=value, tolerance=tolerance, passed=passed)


def _shown(claim: Claim, value: float | None) -> str:
    if value is None:
        return ""
    if claim.unit in ("fraction", "ratio"):
        return f"{value:.1%}" if claim.unit == "fraction" else f"{significant(value)}×"
    return f"{significant(value * 1e3)} ms" if claim.stated < 1 else f"{significant(value)} s"


def _palm(phase: str, batch_size: int, input_len: int, output_len: int, weight_dtype: str) -> Callable[[Row], bool]:
    """Rows of 64 TPU v4 at that workload."""
    wanted = {
        "model": "palm-540b",
        "hw": "tpu-v4",
        "num_chips": 64,
        "phase": phase,
        "batch_size": batch_size,
        "input_len": input_len,
        "output_len": output_len,
        "weight_dtype": weight_dtype,
    }
    return lambda row: all(getattr(row, key) == value for key, value in wanted.items())


def _fastest(rows: Iterable[Row], wanted: Callable[[Row], bool]) -> Row | None:
    """The fastest of the layouts."""
    return min((row for row in rows if wanted(row)), key=lambda row: row.latency_s or float("inf"), default=None)


def _figure(name: str, *workload: Any) -> Measure:
    def measure(rows: Sequence[Row]) -> float | None:
        row = _fastest(rows, _palm(*workload))
        return None if row is None else getattr(row, name)

    return measure


def _peak_mfu(contender: Contender) -> Measure:
    def measure(rows: Sequence[Row]) -> float | None:
        mine = (row for row in rows if contender.is_of(row) and (row.input_len, row.output_len) in LENGTHS)
        return max((row.mfu for row in mine if row.mfu is not None), default=None)

    return measure


def _offline_mfu(rows: Sequence[Row]) -> float | None:
    """MFU of 1984 tokens in and 64 out at batch 512: of a generate point, else of prefill and decode points together
    (a prefill of 2048 tokens is scaled to 1984).
    """
    whole = _fastest(rows, _palm("generate", 512, 1984, 64, "bfloat16"))
    if whole is not None:
        return whole.mfu
    decode = _fastest(rows, _palm("decode", 512, 1984, 64, "bfloat16"))
    prefill = _fastest(rows, _palm("prefill", 512, 1984, 0, "bfloat16"))
    longer = _fastest(rows, _palm("prefill", 512, 2048, 0, "bfloat16"))
    if decode is None or decode.mfu is None or decode.latency_s is None:
        return None
    first = prefill or longer
    if first is None or first.latency_s is None or decode.tokens_per_s is None:
        return None
    total_s = first.latency_s * 1984 / first.input_len + decode.latency_s
    # MFU is proportional to tokens per second on the same chips.
    return decode.mfu * (512 * (1984 + 64) / total_s) / decode.tokens_per_s


def _serial_cost(rows: Sequence[Row]) -> float | None:
    """Decode step of the serial block over the parallel one's, at the longest context that both have at batch 512."""
    steps: dict[str, dict[tuple[Any, ...], float]] = {"palm-540b": {}, "palm-540b-serial": {}}
    for row in rows:
        workload = (row.hw, row.num_chips, row.phase, row.batch_size, row.ffn_layout)
        if row.model in steps and workload == ("tpu-v4", 64, "decode", 512, "ws_2d") and row.step_time_s is not None:
            setting = (row.input_len, row.output_len, row.weight_dtype, row.attn_sharding, row.collectives)
            steps[row.model][setting] = row.step_time_s
    both = sorted((each for each in steps["palm-540b"] if each in steps["palm-540b-serial"]), key=str)
    if not both:
        return None
    last = max(both, key=lambda each: (each[0], str(each)))
    return steps["palm-540b-serial"][last] / steps["palm-540b"][last]


def _headline_gap(rows: Sequence[Row]) -> float | None:
    """Highest MFU of 64-way TPU v4 over that of 32-way FasterTransformer."""
    ours, theirs = _peak_mfu(PALM)(rows), _peak_mfu(TP32)(rows)
    return None if ours is None or theirs is None else ours / theirs


def _claim(
    text: str, stated: float, rounding: float, unit: Any, measure: Measure, *, relation: Relation = "equals"
) -> Claim:
    return Claim(text=text, stated=stated, rounding=rounding, unit=unit, measure=measure, relation=relation)


# The rounding of a percentage is that of the printed one and that of the printed latency together.
CLAIMS: Final = (
    _claim("64-way TPU v4, PaLM 540B: highest MFU of a whole generation", 0.44, 0.01, "fraction", _peak_mfu(PALM)),
    _claim("FasterTransformer 32-way: highest MFU", 0.33, 0.005, "fraction", _peak_mfu(TP32)),
    _claim("FasterTransformer 16-way: highest MFU", 0.46, 0.005, "fraction", _peak_mfu(TP16)),
    _claim(
        "64-way TPU v4 over 32-way FasterTransformer: ratio of the highest MFU",
        1.0,
        0.0,
        "ratio",
        _headline_gap,
        relation="at least",
    ),
    _claim(
        "decode step, batch 64, context 2048, int8",
        0.0285,
        0.00005,
        "s",
        _figure("step_time_s", "decode", 64, 2048, 1, "int8"),
    ),
    _claim(
        "decode step, batch 64, context 2048, bf16",
        0.0369,
        0.00005,
        "s",
        _figure("step_time_s", "decode", 64, 2048, 1, "bfloat16"),
    ),
    _claim(
        "prefill of one prompt of 2048 tokens, int8: latency",
        0.29,
        0.005,
        "s",
        _figure("latency_s", "prefill", 1, 2048, 0, "int8"),
    ),
    _claim(
        "prefill of one prompt of 2048 tokens, int8: MFU",
        0.43,
        0.0125,
        "fraction",
        _figure("mfu", "prefill", 1, 2048, 0, "int8"),
    ),
    _claim(
        "decode of 64 tokens, batch 64, int8: MFU",
        0.14,
        0.0055,
        "fraction",
        _figure("mfu", "decode", 64, 1984, 64, "int8"),
    ),
    _claim(
        "prefill, batch 512, 2048 tokens, bf16: MFU",
        0.76,
        0.0055,
        "fraction",
        _figure("mfu", "prefill", 512, 2048, 0, "bfloat16"),
    ),
    _claim(
        "decode of 64 tokens, batch 512, bf16: MFU",
        0.33,
        0.008,
        "fraction",
        _figure("mfu", "decode", 512, 1984, 64, "bfloat16"),
    ),
    _claim(
        "offline, 1984 in, 64 out, batch 512: MFU of prefill and decode together", 0.73, 0.005, "fraction", _offline_mfu
    ),
    _claim(
        "chat turn within 1.9 s, of which 64 tokens of decode at batch 64, int8",
        1.9,
        0.05,
        "s",
        _figure("latency_s", "decode", 64, 1984, 64, "int8"),
        relation="at most",
    ),
    _claim("a serial block's decode step over the parallel one's, batch 512", 1.14, 0.005, "ratio", _serial_cost),
)
