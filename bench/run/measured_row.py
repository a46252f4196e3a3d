"""The row of a program that the harness has timed, in one process or in several."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.measure.background import too_noisy
from bench.measure.processes import TimedProcess, common_median, spread, summarise_processes
from bench.measure.stats import Summary
from bench.measure.timing import Samples, TimingConfig
from bench.rows.counted import counted
from bench.run.make_row import PointTask, row_from, sampled, times_of, with_first_token
from engines.core.engine import Program, Verification
from engines.core.row import Row


def measured(
    task: PointTask,
    program: Program,
    samples: Samples,
    verification: Verification,
    config: TimingConfig,
    background: Mapping[str, Any] | None = None,
) -> Row:
    """The row of a timed program, together with what earlier processes found of it.

    It is valid if its interval is narrow enough, its output matches the reference, the machine was quiet enough, and it
    is plausible. ``background`` is what else the machine did (:mod:`bench.measure.background`).
    """
    facts = program.facts()
    now = TimedProcess(samples=samples, unsound=_unsound(samples, verification), background=background)
    processes = [*task.earlier, now]
    totals = [each.samples.totals for each in processes]
    summary = summarise_processes(totals, config)
    stage = {name: common_median([each.samples.stages[name] for each in processes]) for name in samples.stages}
    times = times_of(
        with_first_token(task.point, facts), facts, summary.median, stage.get("prefill"), stage.get("decode")
    )
    reason = _invalid_reason(summary, processes, config)
    details = {
        **facts.details,
        "verified_against": verification.against,
        "tolerance": verification.tolerance,
        "stages_s": {name: [time for each in processes for time in each.samples.stages[name]] for name in stage},
    }
    if task.earlier:
        details["processes"] = [
            {
                "samples": len(each.samples.totals),
                "warmup_runs": each.samples.warmup_runs,
                "background": each.background,
            }
            for each in processes
        ]
    if task.goes_on:
        details["process"] = {"warm": samples.warm, "unsound": now.unsound}
    return row_from(
        task,
        facts,
        {
            **times,
            "status": "ok",
            "valid": reason is None,
            "invalid_reason": reason,
            **sampled([time for each in totals for time in each], summary),
            "process_medians_s": [median(each) for each in totals] if task.earlier else None,
            "process_spread": spread(totals),
            "warmup_runs": samples.warmup_runs,
            "compile_s": program.compile_s,
            "max_relative_error": verification.max_relative_error,
            "kl_divergence": verification.kl_divergence,
            "bf16_max_relative_error": verification.bf16_max_relative_error,
            "bf16_kl_divergence": verification.bf16_kl_divergence,
            "quality_kl": verification.quality_kl,
            "quality_agreement": verification.quality_agreement,
            "quality_perplexity": verification.quality_perplexity,
            "background": None if background is None else dict(background),
            "details": details,
        },
    )


def process_of(row: Row) -> TimedProcess:
    """What the process of a row that ``goes_on`` has found."""
    said = row.details["process"]
    samples = Samples(dict(row.details["stages_s"]), row.warmup_runs or 0, said["warm"])
    return TimedProcess(samples=samples, unsound=said["unsound"], background=row.background)


def _unsound(samples: Samples, verification: Verification) -> str | None:
    """Why one process's samples should not count."""
    reasons = []
    if not verification.ok:
        reasons.append(
            f"output differs from {verification.against} by {verification.max_relative_error:.2g} relative, "
            f"more than {verification.tolerance:.2g}"
        )
    if not samples.warm:
        reasons.append(f"still warming up after {counted(samples.warmup_runs, 'run')}")
    return "; ".join(reasons) or None


def _invalid_reason(summary: Summary, processes: Sequence[TimedProcess], config: TimingConfig) -> str | None:
    reasons = []
    for number, each in enumerate(processes, start=1):
        found = [*([] if each.unsound is None else [each.unsound]), *too_noisy(each.background or {}, config)]
        where = f"process {number}: " if len(processes) > 1 else ""
        reasons += [f"{where}{reason}" for reason in found]
        if len(each.samples.totals) < config.min_samples:
            samples = counted(len(each.samples.totals), "sample")
            reasons.append(f"{where}{samples}, fewer than {config.min_samples}, fit in timing.max_time_s")
    half_width = (summary.ci_high - summary.ci_low) / 2 / summary.median
    if half_width > config.max_relative_ci:
        reasons.append(
            f"{summary.ci_level:.0%} interval is ±{half_width:.1%} of the median, more than "
            f"±{config.max_relative_ci:.1%}, after {counted(summary.n, 'sample')}"
        )
    return "; ".join(reasons) or None
