"""How well the ratio of two predictions is known: what two rows of one stack are off against each other.

Two plans for one model, chip and runtime share most of what is wrong with a prediction: an efficiency that is too high
is so for both. So their ratio is known better than either. Rows of one source, chip, runtime and model say by how much:
each pair of them has a predicted and a published ratio.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any, Final

import numpy as np

from bench.validate.case import Case
from bench.validate.data import read_data
from bench.validate.runtimes import asked
from engines.core.chip import ChipKind

LEVEL: Final = 0.8
LEAST_PAIRS: Final = 50
"""Fewer pairs say nothing of a quantile."""

Error = tuple[Case, float]
"""A case, and the logarithm of its predicted over its published time."""


@dataclass(frozen=True, slots=True)
class RatioError:
    """In 80% of ``pairs`` from ``groups`` stacks the predicted ratio is off by at most ``factor`` (≥ 1) either way."""

    factor: float
    pairs: int
    groups: int

    def told_apart(self, ratio: float) -> bool:
        """Whether two predictions with this ratio are further apart than they may be off."""
        return max(ratio, 1 / ratio) > self.factor


def ratio_error(kind: ChipKind, *, same_workload: bool = False) -> RatioError | None:
    """How far ratios of predictions on chips of a kind are off; None where too few published rows tell it.

    With ``same_workload`` two predictions differ in chips, mesh or degrees alone, if enough pairs of rows do.
    """
    errors = _published_errors()
    of_kind = [each for each in errors if each[0].point.chip.kind == kind]
    found = error_of_ratios(of_kind, _workload) if same_workload else None
    return found or error_of_ratios(of_kind)


def error_of_ratios(errors: Iterable[Error], alike: Callable[[Case], Any] = lambda _: None) -> RatioError | None:
    """The factor within which 80% of the ratios of two rows of one stack are predicted; None for too few pairs.

    Pairs are those of one source, chip, runtime and model with equal ``alike``. A stack counts by the square root of
    its rows, so that a large table does not drown the others.
    """
    stacks: dict[tuple[Any, ...], list[Error]] = defaultdict(list)
    for case, error in errors:
        point = case.point
        stacks[case.reference, point.chip.name, case.runtime, point.model.name].append((case, error))
    sizes: list[float] = []
    weights: list[float] = []
    groups = 0
    for rows in stacks.values():
        apart = [abs(a - b) for (one, a), (other, b) in combinations(rows, 2) if alike(one) == alike(other)]
        if apart:
            groups += 1
            sizes += apart
            weights += [math.sqrt(len(rows)) / len(apart)] * len(apart)
    if len(sizes) < LEAST_PAIRS:
        return None
    return RatioError(math.exp(_quantile(sizes, weights)), len(sizes), groups)


def _quantile(values: Sequence[float], weights: Sequence[float]) -> float:
    order = np.argsort(values)
    share = np.cumsum(np.asarray(weights)[order])
    return float(np.asarray(values)[order][np.searchsorted(share, LEVEL * share[-1])])


def _workload(case: Case) -> tuple[Any, ...]:
    point = case.point
    return (point.phase, point.batch_size, point.input_len, point.output_len, point.weight_dtype, point.kv_dtype)


@cache
def _published_errors() -> tuple[Error, ...]:
    """Of every published row with both times: without its source in the fit where that is stored, else with it."""
    from bench.validate.left_out import errors_by_line
    from engines.analytic.engine import AnalyticEngine

    engine = AnalyticEngine()
    cases = asked(read_data(None, engine.name).cases, engine)
    left_out = errors_by_line()
    found = []
    for case, answer in zip(cases, engine.estimate([case.point for case in cases]), strict=True):
        error = left_out.get((case.file, case.line))
        if error is None and case.latency_s and answer.status == "ok" and answer.latency_s:
            error = answer.latency_s / case.latency_s - 1
        if error is not None:
            found.append((case, math.log1p(error)))
    return tuple(found)
