"""Constants of links from measured rows of the small programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from engines.compiled.calibration.programs import COLLECTIVES
from engines.compiled.calibration.suite import CalibrationRow
from engines.core.chip import LinkConstants
from engines.core.errors import InvalidRequest

LEAST_ROWS: Final = 6


@dataclass(frozen=True, slots=True)
class FittedConstants:
    """The constants, and the mean relative errors of rows: each left out of the fit, and by the constants before."""

    constants: LinkConstants
    rows: int
    left_out_error: float
    before_error: float


def fit_links(rows: Sequence[CalibrationRow]) -> FittedConstants:
    """The constants that solve measured seconds = launch + hops · hop + bytes at full bandwidth / efficiency.

    What a turn computes beside the links, by the compiler's cycles, is taken off first. Errors count relatively:
    the least squares of (predicted − measured) / measured, no constant below zero.

    Raises:
        InvalidRequest: there are too few measured collectives, or of several chips, or none that tells a constant apart.
    """
    known = [row for row in rows if row.kind in COLLECTIVES and row.measured_s and not row.error]
    chips = sorted({row.hw for row in known})
    if len(chips) > 1:
        raise InvalidRequest("data", ", ".join(chips), "holds several chips", "give the rows of one")
    if len(known) < LEAST_ROWS or len({row.hops for row in known}) < 2:
        problem = f"holds {len(known)} measured collectives, and three constants need {LEAST_ROWS} of several sizes"
        raise InvalidRequest("data", chips[0] if chips else "no row", problem, "run the small programs on a slice")
    solved = _solve(known)
    left_out = [_error(row, _solve([other for other in known if other is not row])) for row in known]
    before = [abs(row.compiled_s / row.measured_s - 1) for row in known if row.measured_s]
    launch, hop, inverse = solved
    return FittedConstants(
        constants=LinkConstants(link_efficiency=float(1 / inverse), hop_s=float(hop), launch_s=float(launch)),
        rows=len(known),
        left_out_error=float(np.mean(left_out)),
        before_error=float(np.mean(before)),
    )


def _terms(row: CalibrationRow) -> list[float]:
    """Seconds a turn for each constant of one: launches, hops, 1/efficiency."""
    return [float(LAUNCHES[row.kind]), row.hops, row.link_s]


LAUNCHES: Final = {kind: kind.count("+") + 1 for kind in COLLECTIVES}
"""Collectives of a turn."""


def _solve(rows: Sequence[CalibrationRow]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    from scipy.optimize import lsq_linear

    measured = np.array([row.measured_s for row in rows], dtype=float)
    beside = np.array([row.compute_s + row.copy_wait_s for row in rows])
    terms = np.array([_terms(row) for row in rows]) / measured[:, None]
    scale = np.maximum(np.abs(terms).max(axis=0), 1e-30)
    # Payload gets no more than the bandwidth: 1/efficiency is 1 or more.
    bounds = ([0.0, 0.0, 1.0 * scale[2]], [np.inf] * 3)
    found = lsq_linear(terms / scale, (measured - beside) / measured, bounds=bounds).x / scale
    return np.asarray(found, dtype=np.float64)


def _error(row: CalibrationRow, solved: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    assert row.measured_s is not None
    predicted = row.compute_s + row.copy_wait_s + float(np.dot(_terms(row), solved))
    return abs(predicted / row.measured_s - 1)
