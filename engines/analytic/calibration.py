"""Fitting the constants to measured times.

Each constant has a prior (``PRIORS``), and the fit minimizes the squares of log error / NOISE and of
log(constant / prior) / width. A constant that the rows do not determine stays at its prior instead of ending on a
bound.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from engines.analytic.constants import BOUNDS, Constants
from engines.analytic.grid import Floats, Grid, grid_of
from engines.analytic.predict import predict
from engines.core.errors import ShardbenchError
from engines.core.point import Point
from engines.core.text import significant

NOISE: Final = 0.04
"""Error of a measured time, as a fraction: published times repeat to a few percent."""


@dataclass(frozen=True, slots=True)
class Prior:
    """A log-normal prior of a constant: its median, and the standard deviation ``width`` of its logarithm."""

    value: float
    width: float
    why: str


PRIORS: Final[dict[str, dict[str, Prior]]] = {
    "tpu": {
        "matmul_efficiency": Prior(0.85, 0.05, "large bf16 matmuls on TPU reach 80 to 90% of peak"),
        "hbm_efficiency": Prior(0.9, 0.05, "long streams reach about 90% of a DRAM's bandwidth"),
        "roofline_overlap": Prior(0.7, 0.5, "XLA prefetches most weights under the matmul before"),
        "loop_hidden": Prior(0.4, 0.5, "Pope et al. 2022 section 3.5: looped collectives hide a good part"),
        "axis_gain": Prior(0.5, 0.5, "between one axis after the other and all axes in parallel"),
        "layer_s": Prior(2e-5, 0.5, "norms and small vectors, tens of microseconds"),
        "collective_s": Prior(5e-6, 0.5, "a few microseconds to start a collective"),
    },
    "gpu": {
        "matmul_efficiency": Prior(0.85, 0.03, "cuBLAS on its best shapes"),
        "half_width": Prior(1000.0, 0.5, "several tiles of 256"),
        "hbm_efficiency": Prior(0.9, 0.05, "long streams reach about 90% of a DRAM's bandwidth"),
        "roofline_overlap": Prior(0.7, 0.5, "a matmul streams its weights while it multiplies"),
        "link_efficiency": Prior(0.5, 0.5, "NCCL between eight ranks on messages of megabytes"),
        "network_efficiency": Prior(0.5, 0.5, "the same between nodes"),
        "layer_s": Prior(1e-4, 0.3, "a dozen kernels of five to ten microseconds"),
        "collective_s": Prior(2e-5, 0.5, "start of an NCCL kernel"),
        "hop_s": Prior(1e-6, 0.5, "NVLink and a switch, one way"),
        "network_collective_s": Prior(5e-5, 0.5, "InfiniBand and the host's overhead, both ways"),
        "stage_s": Prior(1e-3, 0.5, "send, receive and synchronization on the host"),
        "sampling_s_per_logit": Prior(3e-10, 0.5, "a sort of the vocabulary for top_p"),
    },
}
"""Constants that are fitted to rows, by kind of chip."""

STATED: Final[dict[str, dict[str, Prior]]] = {
    "tpu": {
        "half_width": Prior(128.0, 0.0, "side of the MXU: rows to fill and drain it"),
        "link_efficiency": Prior(0.8, 0.0, "headers and gaps; rows cannot tell it from loop_hidden and axis_gain"),
        "step_s": Prior(5e-4, 0.0, "start of a program, sampling"),
        "hop_s": Prior(1e-6, 0.0, "one microsecond a hop"),
        "sampling_s_per_logit": Prior(1e-11, 0.0, "a few passes over float32 logits"),
        "hbm_usable": Prior(0.97, 0.0, "about 1 GiB is the runtime's"),
    },
    "gpu": {
        "step_s": Prior(1e-4, 0.0, "host overhead of a step; rows cannot tell it from layer_s"),
        "hbm_usable": Prior(0.92, 0.0, "CUDA context, NCCL and cuBLAS workspaces, fragments"),
    },
}
"""Constants that are not fitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The constants, and how well they predict the measured times. Errors are (predicted − measured)/measured."""

    constants: Constants
    fitted: Mapping[str, float]
    uncertainty: Mapping[str, float]
    """Standard deviation of a fitted constant's logarithm: about its relative uncertainty."""
    sensitivity: Floats
    """Squared derivative of each row's residual by each constant's logarithm, [rows, fitted]."""
    errors: Floats

    def set_by(self, labels: Sequence[str]) -> dict[str, dict[str, float]]:
        """For each constant the three groups of rows (``labels``, one a row) that determine it most, with shares."""
        groups = sorted(set(labels))
        rows = np.asarray(labels)
        shares: dict[str, dict[str, float]] = {}
        for column, name in enumerate(self.fitted):
            pull = {group: float(self.sensitivity[rows == group, column].sum()) for group in groups}
            total = sum(pull.values()) or 1.0
            most = sorted(groups, key=lambda group: -pull[group])[:3]
            shares[name] = {group: round(pull[group] / total, 2) for group in most}
        return shares


def kind_of(points: Sequence[Point]) -> str:
    """The kind of the chip that all rows were measured on.

    Raises:
        ShardbenchError: there are no rows, they are of several chips, or of one that cannot be calibrated.
    """
    chips = {point.chip.name: point.chip.kind for point in points}
    if len(chips) != 1:
        raise ShardbenchError(f"hw={', '.join(chips) or 'none'}: constants are fitted to the rows of one chip")
    kind = next(iter(chips.values()))
    if kind not in PRIORS:
        raise ShardbenchError(f"hw={next(iter(chips))}: a {kind} has no constants to fit")
    return kind


def fit(points: Sequence[Point], latency_s: Floats) -> Fit:
    """The constants that predict ``latency_s`` [rows] of ``points`` best.

    Raises:
        ShardbenchError: the rows are of several chips, or a constant ends on its bound.
    """
    from scipy.optimize import least_squares

    kind = kind_of(points)
    priors = PRIORS[kind]
    names = list(priors)
    start = np.log([prior.value for prior in priors.values()])
    widths = np.asarray([prior.width for prior in priors.values()])
    low = np.log([BOUNDS[name].low for name in names])
    high = np.log([BOUNDS[name].high for name in names])
    stated = {name: each.value for name, each in STATED[kind].items()}
    grid = grid_of(points, Constants(**stated, **{name: prior.value for name, prior in priors.items()}))

    def log_error(logs: Floats) -> Floats:
        values = dict(zip(names, np.exp(logs), strict=True))
        return np.asarray(np.log(_latency(grid, values) / latency_s))

    def residuals(logs: Floats) -> Floats:
        return np.concatenate([log_error(logs) / NOISE, (logs - start) / widths])

    found = least_squares(residuals, start, bounds=(low, high))
    for name, value, bottom, top in zip(names, found.x, low, high, strict=True):
        if min(value - bottom, top - value) < 1e-3:
            bound = significant(float(np.exp(value)))
            raise ShardbenchError(
                f"constants.{name}={bound}: the fit ended on its bound; these rows do not determine it"
            )
    fitted = {name: float(np.exp(value)) for name, value in zip(names, found.x, strict=True)}
    spread = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))
    return Fit(
        constants=Constants(**stated, **fitted),
        fitted=fitted,
        uncertainty=dict(zip(names, map(float, spread), strict=True)),
        sensitivity=found.jac[: len(points)] ** 2,
        errors=np.exp(log_error(found.x)) - 1,
    )


def errors_of(points: Sequence[Point], latency_s: Floats, constants: Constants) -> Floats:
    """(predicted − measured)/measured of every row with ``constants``."""
    return np.asarray(predict(grid_of(points, constants)).cost.latency_s / latency_s - 1)


def leave_one_model_out(points: Sequence[Point], latency_s: Floats) -> dict[str, Floats]:
    """For each model the errors of its rows with constants fitted to the others; none where it is the only one."""
    models = np.asarray([point.model.name for point in points])
    held_out: dict[str, Floats] = {}
    for name in sorted(set(models)):
        out = models == name
        if out.all():
            continue
        rest = fit([point for point, leave in zip(points, out, strict=True) if not leave], latency_s[~out])
        asked = [point for point, leave in zip(points, out, strict=True) if leave]
        held_out[str(name)] = errors_of(asked, latency_s[out], rest.constants)
    return held_out


def _latency(grid: Grid, values: Mapping[str, Any]) -> Floats:
    with_values = replace(grid, **{name: np.full(1, value) for name, value in values.items()})
    return predict(with_values).cost.latency_s
