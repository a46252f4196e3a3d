#!/usr/bin/env python3
"""How small a step would nights on this machine show? Simulated from many processes that measured short programs here.

    for i in $(seq 60); do shardbench run +sweep=noise results_dir=results/noise print=none; done
    python examples/nightly/steps_under_noise.py results_dir=results/noise

Where asv is installed, its detector reads the same series, each night those up to it, with its own defaults.
"""

import sys
from collections.abc import Sequence

import numpy as np

from bench.compare.nights.simulate import Plan, Simulated, noise_of, processes_of, simulate
from bench.compare.nights.steps import StepRules, noise_between
from bench.compare.verdicts import label
from bench.rows.store import Store

DEFAULTS = {"results_dir": "results/noise", "histories": "60", "processes": "3", "confirm": "2"}
STEPS = (0.0, 0.03, 0.05, 0.10)
FEWEST = 10
ASV_THRESHOLD = 0.05
"""asv's default of `regressions_thresholds`."""


def main(words: Sequence[str]) -> int:
    """Print the table. Returns 2 without enough processes."""
    settings = DEFAULTS | dict(word.split("=", 1) for word in words)
    rows = Store(settings["results_dir"]).load()
    names = {key: label(row) for row in rows for key in processes_of([row])}
    points = {key: times for key, times in processes_of(rows).items() if len(times) >= FEWEST}
    if not points:
        print(f"no point of {settings['results_dir']} has {FEWEST} valid measurements", file=sys.stderr)
        return 2
    for key, times in points.items():
        noise = noise_between(np.log(times).tolist())[0]
        print(f"{len(times)} processes, {noise:.1%} between neighbours: {names[key]}")
    plan = Plan(processes=int(settings["processes"]), confirm=int(settings["confirm"]))
    generator, rules = np.random.default_rng(0), StepRules()
    common = noise_of(points.values(), plan, generator)
    print(f"nights of {plan.processes} processes differ by {common:.1%}")
    asv = asv_alarms()
    for step in STEPS:
        tried = Plan(processes=plan.processes, confirm=plan.confirm, step=step)
        made = [
            simulate(times, common, rules, tried, generator)
            for times in points.values()
            for _ in range(int(settings["histories"]))
        ]
        told = {"shardbench": [list(each.confirmed) for each in made]}
        if asv is not None:
            told["asv"] = [asv(each) for each in made]
        for name, nights in told.items():
            if step:
                found = np.mean([plan.at + 1 in each or plan.at in each for each in nights])
                print(f"{name}: a step of {step:.0%} is told within two nights in {found:.1%} of {len(made)} histories")
            else:
                rate = 1000 * sum(map(len, nights)) / (len(made) * plan.nights)
                print(f"{name}: {rate:.2f} false alarms in 1,000 nights of a point ({len(made) * plan.nights} tried)")
    return 0


def asv_alarms():  # noqa: ANN201
    """The nights on which asv's detector tells a regression that it did not tell the night before; None without asv."""
    try:
        from asv.step_detect import detect_regressions, detect_steps
    except ImportError:
        return None

    def alarms(history: Simulated) -> list[int]:
        found, told = [], False
        times = np.exp(history.logs).tolist()
        for night in range(3, len(times)):
            _, _, places = detect_regressions(detect_steps(times[: night + 1]), threshold=ASV_THRESHOLD)
            if places and not told:
                found.append(night)
            told = bool(places)
        return found

    return alarms


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
