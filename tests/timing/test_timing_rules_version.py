"""The rules of timing measure simulated programs as their version says."""

import math
from pathlib import Path

from test_timing import Script, timed
from versioned_answers import check, rounded

from bench.measure.stats import summarise
from bench.measure.timing import TIMING_RULES_VERSION, TimingConfig

TABLE = Path(__file__).with_name("data") / "simulated_timings.json"
PROGRAMS = {
    "steady": lambda: Script(decode=lambda run: 0.5),
    "warms up": lambda: Script(prefill=lambda run: 1 + 8 / (1 + run), decode=lambda run: 0.25),
    "never settles": lambda: Script(decode=lambda run: 1.0 + run % 7),
    "noisy": lambda: Script(decode=lambda run: 0.02 * math.exp(0.3 * math.sin(12.9898 * run))),
    "outliers": lambda: Script(prefill=lambda run: 0.01 if run % 11 else 0.2),
}


def test_the_version_stands_for_what_is_measured():
    answers = {}
    for name, make in PROGRAMS.items():
        samples = timed(make(), min_time_s=1.0, max_time_s=30.0)
        config = TimingConfig()
        found = summarise(samples.totals, config.ci_level, config.bootstrap_resamples, config.seed)
        counted = [samples.warmup_runs, samples.warm, len(samples.totals), sum(samples.totals)]
        figures = [found.median, found.mean, found.p90, found.p99, found.ci_low, found.ci_high]
        answers[name] = [rounded(float(each)) for each in (*counted, *figures)]
    check(TABLE, "TIMING_RULES_VERSION", TIMING_RULES_VERSION, answers)
