"""How sure a prediction is: the 80% interval of its seconds.

The variance of log(measured/predicted) has two parts. What the fit leaves open of the constants: each of a time's terms
(compute, memory, communication, overhead) has a relative error, and for a chip and a runtime their covariance follows
from the parameters'. What the forms leave out: how far sources were off that were left out of the fit, beyond that.
Both are stored in ``constants/uncertainty.yaml``, so that an interval costs a few operations on arrays.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from engines.analytic.calibration import Fit, LeftOut
from engines.analytic.constants import BEST_OF, CALIBRATED_FOR, calibrated_name, runtime_of, stored
from engines.analytic.cost import Cost
from engines.analytic.grid import Floats, Ints
from engines.analytic.hierarchy import Name
from engines.core.point import Point

FILE: Final = "uncertainty"
LEVEL: Final = 0.8
"""Share of measured times that an interval shall hold."""
Z: Final = 1.2816
"""Standard deviations of a normal on either side of which 10% lie."""
TERMS: Final = ("compute_s", "memory_s", "communication_s", "overhead_s")
SHRINKAGE: Final = 30.0
"""Rows at which a runtime's own spread counts as much as that of all of its kind, had it very many sources."""
LEAST: Final = 0.02
"""Least spread: published times repeat to a few percent."""
TERM_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "compute_s": (
        "matmul_efficiency",
        "half_width",
        "attention_matmul",
        "matmul_16bit",
        "matmul_int8",
        "matmul_float8",
    ),
    "memory_s": (
        *("hbm_efficiency", "stream_16bit", "stream_int8", "stream_int4", "stream_float8", "cache_efficiency"),
        *("kv_reread", "score_passes", "encoder_score_passes", "vector_passes", "roofline_overlap"),
    ),
    "communication_s": (
        *("link_efficiency", "axis_gain", "network_efficiency", "loop_hidden", "prefetch", "collective_s", "hop_s"),
        *("network_collective_s", "stage_s"),
    ),
    "overhead_s": ("layer_s", "step_s", "host_layer_s", "host_prefill_layer_s", "request_s", "sampling_s_per_logit"),
}
"""Term of a time → the constants that scale it."""
UNSEEN: Final = 0.2
"""Part of its term that a parameter is taken to make where no row has it."""


def term_shares(cost: Cost) -> Floats:
    """Share of each of TERMS in a time, [points, terms]: what overlaps is taken from all alike."""
    terms = np.stack(np.broadcast_arrays(*(getattr(cost, name) for name in TERMS)), axis=-1)
    return np.asarray(terms / np.maximum(terms.sum(axis=-1, keepdims=True), 1e-30))


def term_covariance(fit: Fit, chip: str, runtime: str) -> Floats:
    """Covariance of the logarithms of TERMS for a chip and a runtime, [terms, terms].

    A parameter makes that part of its term that it makes in the fit's rows: the sum of its derivatives there over that
    of the term's shares.
    """
    shares = term_shares(fit.cost)
    term: dict[Name, int] = {}
    for place, of_time in enumerate(TERMS):
        for constant in TERM_OF[of_time]:
            term |= dict.fromkeys(fit.priors.value(fit.kind, chip, runtime, constant).names, place)
    column = {name: index for index, name in enumerate(fit.names)}
    seen = [name for name in term if name in column]
    factors = np.zeros((len(TERMS), len(fit.names)))
    for name in seen:
        slopes = np.abs(fit.jacobian[:, column[name]])
        whole = float(shares[slopes > 0, term[name]].sum())
        factors[term[name], column[name]] = min(1.0, float(slopes.sum()) / whole) if whole > 0 else UNSEEN
    found = factors @ fit.covariance @ factors.T
    for name in term.keys() - column.keys():
        found[term[name], term[name]] += (UNSEEN * fit.priors.width[name]) ** 2
    return np.asarray(found)


def spread_of(left_out: Sequence[LeftOut], runtime: str | None = None) -> float:
    """Standard deviation of log(measured/predicted) beyond the parameters', for sources that were left out.

    It is that with which LEVEL of the rows lie in their intervals. A runtime's own is drawn to that of all: the more,
    the fewer its rows and its sources, of which one says little about the next.
    """
    errors = np.concatenate([each.log_errors for each in left_out])
    variances = np.concatenate([each.variances for each in left_out])
    whole = _spread(errors, variances)
    mine = np.asarray([name == runtime for each in left_out for name in each.runtimes])
    rows, sources = int(mine.sum()), sum(runtime in each.runtimes for each in left_out)
    if not rows:
        return whole
    weight = rows / (rows + SHRINKAGE) * sources / (sources + 1)
    return float(np.exp(weight * np.log(_spread(errors[mine], variances[mine])) + (1 - weight) * np.log(whole)))


def _spread(errors: Floats, variances: Floats) -> float:
    """s with which LEVEL of errors² are at most Z²·(variance + s²)."""
    return float(np.sqrt(max(float(np.quantile((errors / Z) ** 2 - variances, LEVEL)), LEAST**2)))


def held_by(left_out: Sequence[LeftOut]) -> dict[str, float]:
    """Source → share of its rows within their intervals, whose spread is that of the other sources."""
    found = {}
    for each in left_out:
        rest = [other for other in left_out if other is not each]
        if rest:
            spreads = np.asarray([spread_of(rest, runtime) for runtime in each.runtimes])
            found[each.source] = float(np.mean(np.abs(each.log_errors) <= Z * np.sqrt(each.variances + spreads**2)))
    return found


@cache
def _tables() -> tuple[Mapping[tuple[str, str, str], int], Floats, Floats]:
    """(kind, chip's file, runtime) → place; covariances [places, terms, terms]; spreads [places]."""
    places: dict[tuple[str, str, str], int] = {}
    covariances: list[Any] = []
    spreads: list[float] = []
    for kind, content in stored(FILE).items():
        for runtime, about in content["runtimes"].items():
            for chip, upper in about["terms"].items():
                places[kind, str(chip), str(runtime)] = len(places)
                whole = np.zeros((len(TERMS), len(TERMS)))
                whole[np.triu_indices(len(TERMS))] = upper
                covariances.append(whole + np.triu(whole, 1).T)
                spreads.append(float(about["spread"]))
    return places, np.asarray(covariances), np.asarray(spreads)


def place_of(point: Point) -> int:
    """Which stored uncertainty is a point's: a runtime or chip that has none takes the best one's, the kind's."""
    kind, chip = point.chip.kind, calibrated_name(point.chip)
    runtime = runtime_of(point).name.partition("+")[0]
    places = _tables()[0]
    for name in (runtime, BEST_OF[kind]):
        for file in (chip, CALIBRATED_FOR[kind]):
            if (kind, file, name) in places:
                return places[kind, file, name]
    raise KeyError(f"constants/{FILE}.yaml lacks {BEST_OF[kind]} on {kind}")


def log_spread(cost: Cost, places: Ints) -> Floats:
    """Standard deviation of log(measured/predicted), [points]; ``places`` [points] are :func:`place_of` each."""
    _, covariances, spreads = _tables()
    shares = term_shares(cost)
    found = spreads[places] ** 2
    for row in range(len(TERMS)):
        for column in range(len(TERMS)):
            found = found + shares[:, row] * shares[:, column] * covariances[places, row, column]
    return np.asarray(np.sqrt(found))


def interval(cost: Cost, places: Ints) -> tuple[Floats, Floats]:
    """The seconds below which, and above which, one in ten measured times is expected, [points] each."""
    factor = np.exp(Z * log_spread(cost, places))
    return cost.latency_s / factor, cost.latency_s * factor
