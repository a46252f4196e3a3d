"""Builds rows: point + result + environment → row."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from bench.measure.processes import TimedProcess
from bench.measure.stats import Summary, summarise
from bench.measure.timing import TimingConfig
from bench.rows.derived_metrics import multiplied_share
from bench.rows.metrics import derive
from bench.rows.min_hbm_bytes import forward_passes, min_hbm_bytes
from bench.rows.plausible import plausible, without_cached_mbu, without_table_mfu
from bench.run.environment import cpu_affinity, read_environment
from engines.core.engine import Estimate, Facts
from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.core.pruning import as_run
from engines.core.row import POINT_FIELDS, Row, Source, Status

RATES_OF_A_SERVER: Final = ("tokens_per_s", "tokens_per_s_per_chip", "mfu", "cost_chip_s_per_token")
"""The metrics that a server under load has too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTask:
    """A point to evaluate, with the row fields that do not depend on the result.

    ``conditions`` are those of a measurement (:mod:`bench.run.conditions`). ``stored`` holds candidate rows from the
    store, best first; one is valid if its program would still run now. ``claim``: :mod:`bench.rows.claim`. ``earlier``
    is what other processes have found of the point, where several measure it; ``goes_on`` that others will.
    """

    point: Point
    point_id: str
    source: Source
    sweep: str | None
    code_id: str | None = None
    conditions: Mapping[str, Any] | None = None
    stored: Sequence[Row] = ()
    earlier: Sequence[TimedProcess] = ()
    goes_on: bool = False
    claim: str | None = None


def row_without_time(task: PointTask, status: Status, error: str, facts: Facts | None = None) -> Row:
    """The row of a point that ended without a time; ``error`` is one sentence."""
    return row_from(task, facts or Facts(), {"status": status, "error": error, "invalid_reason": error})


def estimated(task: PointTask, estimate: Estimate, without: Sequence[str] = ()) -> Row:
    """The row of an estimate. One with a time is valid if it is plausible: it has no confidence interval to check.

    ``without`` names figures that the row shall not have, since something in their formula is not known.
    """
    origin = {"system": estimate.system, "reference": estimate.reference, "published_mfu": estimate.published_mfu}
    if estimate.status != "ok" or estimate.latency_s is None:
        error = estimate.error or "the engine returned no time"
        status: Status = "failed" if estimate.status == "ok" else estimate.status
        return row_from(task, estimate.facts, {**origin, "status": status, "error": error, "invalid_reason": error})
    point = with_first_token(task.point, estimate.facts)
    steps = point.decode_steps
    decode_s = None if estimate.step_time_s is None else estimate.step_time_s * steps
    if decode_s is None and estimate.ttft_s is not None and steps:
        decode_s = estimate.latency_s - estimate.ttft_s
    times = times_of(point, estimate.facts, estimate.latency_s, estimate.ttft_s, decode_s)
    samples = sampled(estimate.samples_s, _summarised(estimate.samples_s, TimingConfig())) if estimate.samples_s else {}
    unknown = dict.fromkeys(without)
    interval = {"latency_low_s": estimate.latency_low_s, "latency_high_s": estimate.latency_high_s}
    row = row_from(
        task, estimate.facts, {**origin, **times, **interval, **samples, **unknown, "status": "ok", "valid": True}
    )
    return with_energy(row, row.latency_s, estimate.mean_power_w, estimate.energy_source)


def under_load(
    task: PointTask,
    estimate: Estimate,
    figures: Mapping[str, Any],
    load: Mapping[str, Any],
    without: Sequence[str] = (),
) -> Row:
    """The row of a server under load: the rates of all its requests together, and no time of a batch.

    ``figures`` are fields of the row that are known as they are, among them ``tokens_per_s`` if it is known; ``load``
    and ``without`` are those of the row and of :func:`estimated`.
    """
    origin = {"system": estimate.system, "reference": estimate.reference}
    peak, bandwidth, peak_source = _peaks(task.point, estimate.facts)
    content = {"peak_flops_per_s": peak, "hbm_bytes_per_s": bandwidth, "peak_source": peak_source, **figures}
    if (rate := figures.get("tokens_per_s")) is not None:
        rates = derive(task.point, latency_s=1 / rate, tokens=1, peak_flops_per_s=peak)
        content = {**{name: rates[name] for name in RATES_OF_A_SERVER}, **content}
    unknown = dict.fromkeys(without)
    return row_from(task, estimate.facts, {**origin, **content, **unknown, "load": load, "status": "ok", "valid": True})


def with_energy(row: Row, seconds: float | None, mean_power_w: float | None, source: str | None) -> Row:
    """The row with the energy of all chips in ``seconds``: their mean power while it was sampled · that."""
    if mean_power_w is None or seconds is None:
        return row
    details = {**row.details, "mean_power_w": mean_power_w}
    return replace(row, energy_j=mean_power_w * seconds, energy_source=source, details=details)


def _summarised(samples: Sequence[float], config: TimingConfig) -> Summary:
    return summarise(samples, config.ci_level, config.bootstrap_resamples, config.seed)


def sampled(samples: Sequence[float], summary: Summary) -> dict[str, Any]:
    """The samples and their statistics, under their row keys."""
    return {"samples_s": list(samples), **asdict(summary)}


def times_of(
    point: Point, facts: Facts, latency_s: float, prefill_s: float | None, decode_s: float | None
) -> dict[str, Any]:
    """The times and rates of a point that took so many seconds, and the peaks that its shares are of."""
    peak, bandwidth, peak_source = _peaks(point, facts)
    rates = derive(
        point,
        latency_s=latency_s,
        prefill_s=prefill_s,
        decode_s=decode_s,
        peak_flops_per_s=peak,
        hbm_bytes_per_s=bandwidth,
        matmul_flops_per_s=facts.measured_matmul_flops_per_s,
        copy_bytes_per_s=facts.measured_copy_bytes_per_s,
        tokens=facts.processed_tokens,
        cached_tokens=facts.cached_tokens,
        mean_layers=facts.mean_layers,
    )
    return {**rates, "peak_flops_per_s": peak, "hbm_bytes_per_s": bandwidth, "peak_source": peak_source}


def _peaks(point: Point, facts: Facts) -> tuple[float | None, float | None, str | None]:
    """FLOP/s and bytes/s, the denominators of MFU and MBU, and the source of the peak.

    They are the engine's measurements if it has any, else the datasheet's.
    """
    if facts.peak_flops_per_s is not None:
        return facts.peak_flops_per_s, facts.hbm_bytes_per_s, facts.peak_source
    try:
        peak = point.chip.peak(point.act_dtype)
    except Unsupported:
        return None, point.chip.hbm_bytes_per_s, None
    return peak, point.chip.hbm_bytes_per_s, f"datasheet, dense {point.act_dtype}"


def with_first_token(point: Point, facts: Facts) -> Point:
    """The point with ``first_token`` resolved (decode by default), which determines its number of decode steps."""
    first_token = facts.resolved.get("first_token", "decode" if point.first_token == "auto" else point.first_token)
    return replace(point, first_token=first_token)


def _measuring_process(task: PointTask) -> dict[str, Any]:
    """What a measured row says of the process that it was measured in, which is this one."""
    if task.source != "measured":
        return {}
    return {
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "cpu_affinity": cpu_affinity(),
        "conditions": None if task.conditions is None else dict(task.conditions),
    }


def _whole(name: str, value: Any) -> Any:
    """Bytes are whole: those of a mean, over chips or over prompts of different lengths, are rounded up.

    The thousandths are the rounding of sums of floating-point numbers.
    """
    return float(math.ceil(round(value, 3))) if name.endswith("_bytes") and value is not None else value


def row_from(task: PointTask, facts: Facts, content: Mapping[str, Any]) -> Row:
    """A row of a point, what its engine knows of it, this environment, and other fields by name."""
    environment = read_environment()
    requested = task.point.axes()
    first_token = with_first_token(task.point, facts).axes()["first_token"]
    resolved = {**requested, **facts.resolved, "first_token": first_token}
    if resolved["mesh_shape"] is not None:
        resolved["mesh_shape"] = list(resolved["mesh_shape"])
    chosen = [key for key in POINT_FIELDS if requested[key] in (None, "auto") and resolved[key] not in (None, "auto")]
    from_facts: Sequence[str] = (
        "compute_s",
        "memory_s",
        "communication_s",
        "overlapped_s",
        "overhead_s",
        "peak_hbm_bytes",
        "weights_bytes",
        "kv_cache_bytes",
        "activations_bytes",
        "tokens_per_turn",
        "mean_layers",
        "measured_matmul_flops_per_s",
        "measured_copy_bytes_per_s",
        "device_kind",
    )
    fields = {
        **{key: resolved[key] for key in POINT_FIELDS},
        "chosen": chosen,
        "point_id": task.point_id,
        "program_id": facts.program_id,
        "code_id": task.code_id,
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "sweep": task.sweep,
        "claim": task.claim,
        "source": task.source,
        **{name: _whole(name, getattr(facts, name)) for name in from_facts},
        "git_sha": environment.git_sha,
        "git_dirty": environment.git_dirty,
        "versions": {**environment.versions, **facts.versions},
        "host": environment.host,
        **_measuring_process(task),
        "details": dict(facts.details),
        **content,
    }
    row = _without_cached_mbu(Row(**fields), with_first_token(task.point, facts), facts.cached_tokens)
    return plausible(_without_table_mfu(row, task.point, facts.processed_tokens))


def _without_table_mfu(row: Row, point: Point, tokens: int | None) -> Row:
    """The row without MFU if only the tables, which a prompt does not multiply by, take it above 1."""
    tokens = point.tokens if tokens is None else tokens
    return without_table_mfu(row, multiplied_share(as_run(point), tokens)) if tokens else row


def _without_cached_mbu(row: Row, point: Point, cached_tokens: int | None) -> Row:
    """The row without MBU if what a forward pass reads fits the caches that it ran with.

    Of a GPU that is each chip's L2, of this machine the last-level cache, which all its devices share. What was
    computed did not run with any.
    """
    if row.status != "ok" or row.source not in ("measured", "published"):
        return row
    read_bytes = min_hbm_bytes(as_run(point), cached_tokens) / forward_passes(point)
    if point.chip.cuda is not None:
        return without_cached_mbu(row, read_bytes, point.num_chips * point.chip.cuda.l2_bytes)
    on_this_machine = row.source == "measured" and point.chip.kind == "cpu"
    return without_cached_mbu(row, read_bytes, read_environment().cache_bytes if on_this_machine else None)
