"""Which runners-up of a search cannot be told apart from the chosen plan, and how sure each time is."""

from collections.abc import Sequence
from dataclasses import replace

from bench.planner.search import Candidate, SearchResult
from bench.validate.ratios import ratio_error
from engines.analytic.engine import AnalyticEngine


def with_intervals(found: SearchResult) -> SearchResult:
    """The result of a search with the 80% intervals of its plans' times, and of the runners-up's losses.

    That of a loss is narrower: two plans on one chip and runtime share most of what is wrong with a prediction
    (:mod:`bench.validate.ratios`).
    """
    if found.chosen is None:
        return found
    chosen, *others = _timed([found.chosen, *found.runners_up])
    return replace(found, chosen=chosen, runners_up=[_compared(chosen, plan) for plan in others])


def _compared(chosen: Candidate, plan: Candidate) -> Candidate:
    mine, other = chosen.point, plan.point
    same_workload = (chosen.sequences, mine.weight_dtype) == (plan.sequences, other.weight_dtype)
    known = ratio_error(mine.chip.kind, same_workload=same_workload)
    if known is None:
        return plan
    ratio = 1 + plan.loss
    interval = (ratio / known.factor - 1, ratio * known.factor - 1)
    return replace(plan, loss_interval=interval, told_apart=known.told_apart(ratio))


def _timed(plans: Sequence[Candidate]) -> list[Candidate]:
    """The plans with the engine's interval, in proportion where it would choose another layout."""
    answers = AnalyticEngine().estimate([plan.point for plan in plans])
    found = []
    for plan, answer in zip(plans, answers, strict=True):
        low, high, whole = answer.latency_low_s, answer.latency_high_s, answer.latency_s
        if low is None or high is None or not whole:
            found.append(plan)
            continue
        scale = plan.latency_s / whole
        found.append(replace(plan, latency_low_s=low * scale, latency_high_s=high * scale))
    return found
