"""Point + answer + environment → row."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from bench.measure.stats import Summary, summarise
from bench.measure.timing import Samples, TimingConfig
from bench.rows.metrics import derive
from bench.run.environment import read_environment
from engines.core.engine import Estimate, Facts, Program, Verification
from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.core.row import POINT_FIELDS, Row, Source, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTask:
    """A point with what a row says of it besides its answer.

    ``stored`` are rows that answer it if one of their programs is the present one, the one to be preferred first.
    """

    point: Point
    point_id: str
    source: Source
    sweep: str | None
    code_id: str | None = None
    stored: Sequence[Row] = ()


def unanswered(question: PointTask, status: Status, error: str, facts: Facts | None = None) -> Row:
    """The row of a point that ended without a time: ``error`` is one sentence."""
    return _row(question, facts or Facts(), {"status": status, "error": error, "invalid_reason": error})


def estimated(question: PointTask, estimate: Estimate) -> Row:
    """The row of an estimator's answer. It is valid when it is an answer: a prediction has no interval to judge."""
    told = {"system": estimate.system, "reference": estimate.reference, "published_mfu": estimate.published_mfu}
    if estimate.status != "ok" or estimate.latency_s is None:
        error = estimate.error or "the engine gave no time"
        status: Status = "failed" if estimate.status == "ok" else estimate.status
        return _row(question, estimate.facts, {**told, "status": status, "error": error, "invalid_reason": error})
    point = _as_ran(question.point, estimate.facts)
    steps = point.decode_steps
    decode_s = None if estimate.step_time_s is None else estimate.step_time_s * steps
    if decode_s is None and estimate.ttft_s is not None and steps:
        decode_s = estimate.latency_s - estimate.ttft_s
    times = _times(point, estimate.facts, estimate.latency_s, estimate.ttft_s, decode_s)
    sampled = (
        _sampled(estimate.samples_s, _summarised(estimate.samples_s, TimingConfig())) if estimate.samples_s else {}
    )
    return _row(question, estimate.facts, {**told, **times, **sampled, "status": "ok", "valid": True})


def measured(
    question: PointTask, program: Program, samples: Samples, verification: Verification, config: TimingConfig
) -> Row:
    """The row of a timed program. It is valid only if its interval is tight and its output matched the reference."""
    summary = _summarised(samples.totals, config)
    facts = program.facts()
    stage = {name: _summarised(times, config).median for name, times in samples.stages.items()}
    times = _times(_as_ran(question.point, facts), facts, summary.median, stage.get("prefill"), stage.get("decode"))
    reason = _invalid_reason(summary, samples, verification, config)
    details = {
        **facts.details,
        "verified_against": verification.against,
        "tolerance": verification.tolerance,
        "stages_s": dict(samples.stages),
    }
    return _row(
        question,
        facts,
        {
            **times,
            "status": "ok",
            "valid": reason is None,
            "invalid_reason": reason,
            **_sampled(samples.totals, summary),
            "warmup_runs": samples.warmup_runs,
            "compile_s": program.compile_s,
            "max_relative_error": verification.max_relative_error,
            "kl_divergence": verification.kl_divergence,
            "bf16_max_relative_error": verification.bf16_max_relative_error,
            "bf16_kl_divergence": verification.bf16_kl_divergence,
            "details": details,
        },
    )


def _summarised(samples: Sequence[float], config: TimingConfig) -> Summary:
    return summarise(samples, config.ci_level, config.bootstrap_resamples, config.seed)


def _sampled(samples: Sequence[float], summary: Summary) -> dict[str, Any]:
    """The samples and what they say, under their keys of a row."""
    return {"samples_s": list(samples), **asdict(summary)}


def _invalid_reason(summary: Summary, samples: Samples, verification: Verification, config: TimingConfig) -> str | None:
    reasons = []
    if not verification.ok:
        reasons.append(
            f"output differs from {verification.against} by {verification.max_relative_error:.2g} relative, "
            f"more than {verification.tolerance:.2g}"
        )
    if not samples.warm:
        reasons.append(f"still warming up after {samples.warmup_runs} runs")
    half_width = (summary.ci_high - summary.ci_low) / 2 / summary.median
    if half_width > config.max_relative_ci:
        reasons.append(
            f"{summary.ci_level:.0%} interval is ±{half_width:.1%} of the median, more than "
            f"±{config.max_relative_ci:.1%}, after {summary.n} samples"
        )
    if summary.n < config.min_samples:
        reasons.append(f"{summary.n} samples, fewer than {config.min_samples}, fit in timing.max_time_s")
    return "; ".join(reasons) or None


def _times(
    point: Point, facts: Facts, latency_s: float, prefill_s: float | None, decode_s: float | None
) -> dict[str, Any]:
    peak, bandwidth, whose = _peaks(point, facts)
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
    )
    return {**rates, "peak_flops_per_s": peak, "hbm_bytes_per_s": bandwidth, "peak_source": whose}


def _peaks(point: Point, facts: Facts) -> tuple[float | None, float | None, str | None]:
    """The denominators of MFU and MBU: measured where the engine measured them, else the datasheet's."""
    if facts.peak_flops_per_s is not None:
        return facts.peak_flops_per_s, facts.hbm_bytes_per_s, facts.peak_source
    try:
        peak = point.chip.peak(point.act_dtype)
    except Unsupported:
        return None, point.chip.hbm_bytes_per_s, None
    return peak, point.chip.hbm_bytes_per_s, f"datasheet, dense {point.act_dtype}"


def _as_ran(point: Point, facts: Facts) -> Point:
    """The point with the pass of its first token, on which its number of steps depends: the decode loop unless told."""
    first_token = facts.resolved.get("first_token", "decode" if point.first_token == "auto" else point.first_token)
    return replace(point, first_token=first_token)


def _row(question: PointTask, facts: Facts, content: Mapping[str, Any]) -> Row:
    environment = read_environment()
    asked = question.point.axes()
    ran = {**asked, **facts.resolved, "first_token": _as_ran(question.point, facts).axes()["first_token"]}
    if ran["mesh_shape"] is not None:
        ran["mesh_shape"] = list(ran["mesh_shape"])
    chosen = [key for key in POINT_FIELDS if asked[key] in (None, "auto") and ran[key] not in (None, "auto")]
    known: Sequence[str] = (
        "compute_s",
        "memory_s",
        "communication_s",
        "overlapped_s",
        "overhead_s",
        "peak_hbm_bytes",
        "weights_bytes",
        "kv_cache_bytes",
        "activations_bytes",
        "measured_matmul_flops_per_s",
        "measured_copy_bytes_per_s",
        "device_kind",
    )
    fields = {
        **{key: ran[key] for key in POINT_FIELDS},
        "chosen": chosen,
        "point_id": question.point_id,
        "program_id": facts.program_id,
        "code_id": question.code_id,
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "sweep": question.sweep,
        "source": question.source,
        **{name: getattr(facts, name) for name in known},
        "git_sha": environment.git_sha,
        "git_dirty": environment.git_dirty,
        "versions": {**environment.versions, **facts.versions},
        "host": environment.host,
        "details": dict(facts.details),
        **content,
    }
    return Row(**fields)
