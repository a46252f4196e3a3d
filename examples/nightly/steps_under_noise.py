#!/usr/bin/env python3
"""How small a step would nights on this machine show? Simulated from many processes that measured short programs here.

    for night in $(seq 60); do shardbench run +sweep=noise results_dir=results/noise print=none; done
    python examples/nightly/steps_under_noise.py results_dir=results/noise processes=3,9 out=steps.md

Where asv is installed, its detector reads the same series, each night those up to it, with its own defaults. The table
is Markdown: printed, and written to `out`.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench.compare.nights.simulate import Plan, Simulated, noise_of, processes_of, simulate
from bench.compare.nights.steps import StepRules, noise_between
from bench.compare.verdicts import label
from bench.rows.store import Store

DEFAULTS = {"results_dir": "results/noise", "out": "", "histories": "60", "processes": "3,9", "confirm": "2"}
STEPS = (0.03, 0.05, 0.10)
FEWEST = 10
"""Valid measurements that a point needs."""
FIRST_JUDGED = 3
"""The first night that can confirm a step."""
ASV_THRESHOLD = 0.05
"""asv's default of `regressions_thresholds`."""
Alarms = Callable[[Simulated, Sequence[int]], list[int]]


def main(words: Sequence[str]) -> int:
    """Print the table. Returns 2 without enough processes."""
    settings = DEFAULTS | dict(word.split("=", 1) for word in words)
    rows = Store(settings["results_dir"]).load()
    names = {key: label(row) for row in rows for key in processes_of([row])}
    points = {key: times for key, times in processes_of(rows).items() if len(times) >= FEWEST}
    if not points:
        print(f"no point of {settings['results_dir']} has {FEWEST} valid measurements", file=sys.stderr)
        return 2
    lines = ["# Steps that nights on this machine would show", ""]
    for key, times in points.items():
        noise = noise_between(np.log(times).tolist())[0]
        lines.append(f"- {len(times)} processes, which differ by {noise:.1%} from the next: {names[key]}")
    detectors: dict[str, Alarms] = {"shardbench": lambda history, _: list(history.confirmed)}
    asv = asv_alarms()
    if asv is not None:
        detectors["asv"] = asv
    heads = ["processes a night", "noise between nights", "detector", "false alarms in 1,000 nights of a point"]
    heads += [f"{step:.0%} told within two nights" for step in STEPS]
    lines += ["", f"| {' | '.join(heads)} |", "|---:|---:|---|" + "---:|" * (len(STEPS) + 1)]
    for number in settings["processes"].split(","):
        plan = Plan(processes=int(number), confirm=int(settings["confirm"]))
        lines += table_lines(list(points.values()), plan, int(settings["histories"]), detectors)
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if settings["out"]:
        Path(settings["out"]).write_text(text)
    return 0


def table_lines(
    points: Sequence[Sequence[float]], plan: Plan, histories: int, detectors: dict[str, Alarms]
) -> list[str]:
    """A line for each detector: all of them read the same histories."""
    generator, rules = np.random.default_rng(0), StepRules()
    common = noise_of(points, plan, generator)
    cells: dict[str, list[str]] = {name: [] for name in detectors}
    for step in (0.0, *STEPS):
        tried = Plan(processes=plan.processes, confirm=plan.confirm, step=step)
        made = [simulate(times, common, rules, tried, generator) for times in points for _ in range(histories)]
        second = tried.at + 1
        nights = range(second - 2, second + 1) if step else range(FIRST_JUDGED, tried.nights)
        for name, alarms in detectors.items():
            told = [alarms(history, nights) for history in made]
            if step:
                found = sum(bool({second - 1, second} & set(each)) for each in told)
                cells[name].append(f"{found / len(told):.0%}")
            else:
                cells[name].append(f"{1000 * sum(map(len, told)) / (len(told) * tried.nights):.2f}")
    return [f"| {plan.processes} | {common:.1%} | {name} | {' | '.join(each)} |" for name, each in cells.items()]


def asv_alarms() -> Alarms | None:
    """The nights on which asv's detector tells a regression that it did not tell the night before; None without asv."""
    try:
        from asv.step_detect import detect_regressions, detect_steps
    except ImportError:
        return None

    def alarms(history: Simulated, nights: Sequence[int]) -> list[int]:
        found, told = [], False
        times = np.exp(history.logs).tolist()
        for night in nights:
            _, _, places = detect_regressions(detect_steps(times[: night + 1]), threshold=ASV_THRESHOLD)
            if places and not told:
                found.append(night)
            told = bool(places)
        return found

    return alarms


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
