"""The constants of a user's chip and runtime, fitted to his rows from what is known of both."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from bench.calibrate.rows import OwnRows
from bench.rows.error_stats import ErrorStats, error_stats
from engines.analytic.calibration import Fit, Measured, fit, leave_one_source_out
from engines.analytic.constants import BOUNDS, OWNER, of
from engines.analytic.engine import AnalyticEngine
from engines.analytic.hierarchy import Priors
from engines.analytic.priors import Prior
from engines.core.chip import Chip
from engines.core.runtime import Runtime

WIDEST: Final[Mapping[str, float]] = {"chip": 0.1, "runtime": 0.4}
"""By how much at most a constant of one owner differs between machines, releases, settings and hosts: the standard
deviation of its logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFit:
    """Constants for the rows, and what they err: ``before`` with the constants that are shipped, ``held_out`` with
    constants that were fitted without the row's group (None where there is one group alone), ``after`` in the fit.
    """

    rows: OwnRows
    fit: Fit
    start: Mapping[str, float]
    before: ErrorStats | None
    held_out: ErrorStats | None
    after: ErrorStats | None
    by_group: Mapping[str, tuple[ErrorStats | None, ErrorStats | None]] = field(default_factory=dict)
    """Group → errors before, and held out."""

    @property
    def helps(self) -> bool | None:
        """Whether rows that were held out are predicted better; None where nothing was."""
        if self.before is None or self.held_out is None:
            return None
        return self.held_out.mean < self.before.mean


def own_fit(rows: OwnRows) -> OwnFit:
    """Fit the constants that the rows determine; the others stay what they are.

    Every constant starts at its present value, as a log-normal prior as wide as it was before any row was seen, and
    :data:`WIDEST` at most.

    Raises:
        ShardbenchError: the chip cannot be calibrated, or a constant ends beyond its bounds.
    """
    chip, runtime = rows.chip, rows.runtime
    constants = of(chip, runtime)
    start = {name: float(getattr(constants, name)) for name in BOUNDS}
    priors = {
        (chip.name if OWNER[name] == "chip" else runtime.name, name): Prior(
            value, _width(chip, runtime, name) if value > 0 else 0.0, "the constants that come with shardbench"
        )
        for name, value in start.items()
    }
    measured = [
        Measured(point=case.point, latency_s=case.latency_s or 0.0, source=group)
        for case, group in zip(rows.cases, rows.groups, strict=True)
    ]
    found = fit(measured, Priors(own=priors))
    answers = AnalyticEngine().estimate([case.point for case in rows.cases])
    before = np.asarray(
        [
            np.nan if a.latency_s is None else a.latency_s / m.latency_s - 1
            for a, m in zip(answers, measured, strict=True)
        ]
    )
    without = {each.source: each.errors for each in leave_one_source_out(measured, Priors(own=priors))}
    groups = np.asarray(rows.groups)
    return OwnFit(
        rows=rows,
        fit=found,
        start=start,
        before=_stats(before),
        held_out=_stats(np.concatenate(list(without.values()))) if without else None,
        after=_stats(found.errors),
        by_group={name: (_stats(before[groups == name]), _stats(errors)) for name, errors in without.items()},
    )


def _width(chip: Chip, runtime: Runtime, name: str) -> float:
    """Of a constant that is stated and not fitted, 0: it stays."""
    unseen = Priors()
    names = unseen.value(chip.kind, chip.name, runtime.name, name).names
    return min(WIDEST[OWNER[name]], math.sqrt(sum(unseen.width[each] ** 2 for each in names)))


def _stats(errors: Any) -> ErrorStats | None:
    return error_stats(error for error in errors if np.isfinite(error))
