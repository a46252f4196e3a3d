"""Fitting the constants to measured times: one hierarchical fit over the rows of all chips and runtimes of a kind.

It minimizes, over the parameters of :mod:`engines.analytic.hierarchy`, squares of (parameter − prior's mean)/width and
of each row's log error / :data:`NOISE`. Rows weigh less where a source has many (:data:`MANY`), so that big sources do
not drown small ones, and the further a row is off the less it pulls (Cauchy's loss): what a source did differently is
not a constant of its runtime. A constant that the rows do not determine stays at its prior.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from engines.analytic.constants import from_mapping
from engines.analytic.cost import Cost
from engines.analytic.grid import Bools, Floats, grid_of
from engines.analytic.hierarchy import Name, Priors, Rows, constants_with
from engines.analytic.predict import predict
from engines.core.errors import ShardbenchError
from engines.core.point import Point
from engines.core.runtime import BEST

NOISE: Final = 0.06
"""Error of a published time and of the closed forms together, as a fraction."""
MANY: Final = 200
"""Rows of a source up to which each counts in full; n of them count as sqrt(MANY·n) beyond."""
OUTLYING: Final = 1.5
"""Errors, in units of NOISE, from which a row pulls less."""
UNEXPLAINED: Final = 0.7
"""Median of |log error| from which a fit explains nothing: a factor of two."""
KINDS: Final = ("gpu", "tpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One row: its point, which has its runtime, its seconds, and its source (a table, or a group of a user's rows)."""

    point: Point
    latency_s: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The parameters of one kind of chip, and how well they predict. Errors are (predicted − measured)/measured."""

    kind: str
    priors: Priors
    names: tuple[Name, ...]
    logs: Floats
    covariance: Floats
    """Of the parameters, [parameters, parameters]."""
    jacobian: Floats
    """Derivative of each row's log seconds by each parameter, [rows, parameters]."""
    cost: Cost
    errors: Floats
    sources: tuple[str, ...]

    @property
    def values(self) -> dict[Name, float]:
        """Parameter → its logarithm."""
        return dict(zip(self.names, map(float, self.logs), strict=True))

    def constants(self, chip: str, runtime: str) -> dict[str, float]:
        """Constant → value of a chip and a runtime, with rows or without."""
        return constants_with(self.priors, self.values, self.kind, chip, runtime)

    def uncertainty(self, chip: str, runtime: str, constant: str) -> float:
        """Standard deviation of a constant's logarithm: about its relative uncertainty; 0 for one that is stated."""
        names = self.priors.value(self.kind, chip, runtime, constant).names
        places = [self.names.index(name) for name in names if name in self.names]
        unseen = sum(self.priors.width[name] ** 2 for name in names if name not in self.names)
        return float(np.sqrt(self.covariance[np.ix_(places, places)].sum() + unseen))

    def set_by(self, chip: str, runtime: str, constant: str) -> dict[str, float]:
        """The three sources that determine a constant most, with their shares; empty where no row does."""
        names = self.priors.value(self.kind, chip, runtime, constant).names
        places = [self.names.index(name) for name in names if name in self.names]
        pull = (self.jacobian[:, places] ** 2).sum(axis=1)
        if pull.sum() <= 1e-9:
            return {}
        by_source = {
            name: float(pull[np.asarray(self.sources) == name].sum() / pull.sum()) for name in set(self.sources)
        }
        most = sorted(by_source, key=lambda name: (-by_source[name], name))[:3]
        return {name: round(by_source[name], 2) for name in most if by_source[name] >= 0.005}


def kind_of(rows: Sequence[Measured]) -> str:
    """The kind of chip that all rows were measured on.

    Raises:
        ShardbenchError: there are no rows, they are of several kinds, or of one that cannot be calibrated.
    """
    kinds = {row.point.chip.kind for row in rows}
    if len(kinds) != 1:
        raise ShardbenchError(f"rows of {' and '.join(sorted(kinds)) or 'no chip'}: constants are fitted to one kind")
    kind = next(iter(kinds))
    if kind not in KINDS:
        raise ShardbenchError(f"hw={rows[0].point.chip.name}: a {kind} has no constants to fit")
    return kind


def fit(rows: Sequence[Measured], priors: Priors | None = None) -> Fit:
    """The parameters that predict ``rows`` of one kind of chip best.

    Raises:
        ShardbenchError: there are no rows, they are of several kinds, or no constants explain them.
    """
    from scipy.optimize import least_squares

    kind = kind_of(rows)
    known = Priors() if priors is None else priors
    model = Rows([row.point for row in rows], known)
    measured = np.log([row.latency_s for row in rows])
    sources = tuple(row.source for row in rows)
    scale = weights_of(sources) / NOISE

    def residuals(logs: Floats) -> Floats:
        off = (model.log_latency(logs) - measured) * scale
        return np.concatenate([_bounded(off), (logs - model.mean) / model.width])

    def jacobian(logs: Floats) -> Floats:
        off = (model.log_latency(logs) - measured) * scale
        return np.vstack([model.jacobian(logs) * (scale * _slope(off))[:, None], np.diag(1 / model.width)])

    found = least_squares(residuals, model.mean, jac=jacobian, xtol=1e-7, ftol=1e-7, max_nfev=200)
    slopes = model.jacobian(found.x)
    information = slopes.T @ (slopes * (scale**2)[:, None]) + np.diag(1 / model.width**2)
    made = Fit(
        kind=kind,
        priors=known,
        names=model.names,
        logs=found.x,
        covariance=np.asarray(np.linalg.inv(information), dtype=np.float64),
        jacobian=slopes,
        cost=model.cost(found.x),
        errors=np.exp(model.log_latency(found.x) - measured) - 1,
        sources=sources,
    )
    typical = float(np.median(np.abs(np.log1p(made.errors))))
    if typical > UNEXPLAINED:
        raise ShardbenchError(
            f"these rows are off by a factor of {np.exp(typical):.3g} from any constants within their bounds; "
            "check their unit and what they time"
        )
    return made


def weights_of(sources: Sequence[str]) -> Floats:
    """What each row's error counts, [rows]: 1, or sqrt(MANY/n) for one of n > MANY rows of its source.

    The squares of a source's weights so add up to MANY at most.
    """
    counts = Counter(sources)
    return np.asarray([min(1.0, (MANY / counts[source]) ** 0.5) for source in sources])


def _bounded(off: Floats) -> Floats:
    """Residuals whose squares are Cauchy's loss OUTLYING²·log(1 + (off/OUTLYING)²)."""
    return np.sign(off) * OUTLYING * np.sqrt(np.log1p((off / OUTLYING) ** 2))


def _slope(off: Floats) -> Floats:
    ratio = off / OUTLYING
    root = np.sqrt(np.log1p(ratio**2))
    small = np.abs(ratio) < 1e-4
    return np.where(small, 1.0, np.abs(ratio) / np.where(small, 1.0, root) / (1 + ratio**2))


def log_predicted(found: Fit, rows: Sequence[Measured]) -> tuple[Floats, Floats]:
    """Logarithm of the predicted seconds of other rows, and its variance from the parameters' covariance, [rows].

    A chip or a runtime that the fit did not see has its differences at 0, and their priors' variance.
    """
    model = Rows([row.point for row in rows], found.priors)
    place = {name: index for index, name in enumerate(found.names)}
    logs = np.asarray([found.logs[place[name]] if name in place else found.priors.mean[name] for name in model.names])
    covariance = np.diag(model.width**2)
    seen = [index for index, name in enumerate(model.names) if name in place]
    covariance[np.ix_(seen, seen)] = found.covariance[np.ix_(*[[place[model.names[i]] for i in seen]] * 2)]
    slopes = model.jacobian(logs)
    return model.log_latency(logs), np.einsum("ij,jk,ik->i", slopes, covariance, slopes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The rows of one source, predicted with constants that were fitted without it."""

    source: str
    log_errors: Floats
    """log(predicted/measured), [rows]."""
    variances: Floats
    """Of the predictions' logarithms, from the parameters' covariance, [rows]."""
    runtimes: tuple[str, ...]

    @property
    def errors(self) -> Floats:
        """(predicted − measured)/measured, [rows]."""
        return np.exp(self.log_errors) - 1


def leave_one_source_out(rows: Sequence[Measured], priors: Priors | None = None) -> list[LeftOut]:
    """For each source its rows as a fit to all other sources predicts them; none where there is one source alone.

    Where no other source has its runtime, that inherits: the prediction is then that of its priors.
    """
    found = []
    for source in dict.fromkeys(row.source for row in rows):
        rest = [row for row in rows if row.source != source]
        mine = [row for row in rows if row.source == source]
        if not rest:
            continue
        logs, variances = log_predicted(fit(rest, Priors(own=priors.own) if priors else None), mine)
        found.append(
            LeftOut(
                source=source,
                log_errors=logs - np.log([row.latency_s for row in mine]),
                variances=variances,
                runtimes=tuple(_name(row.point) for row in mine),
            )
        )
    return found


def errors_of(points: Sequence[Point], latency_s: Floats, constants: Mapping[str, Any] | None = None) -> Floats:
    """(predicted − measured)/measured of every row with the stored constants, or with ``constants`` for all."""
    grid = grid_of(points, None if constants is None else from_mapping(constants))
    return np.asarray(predict(grid).cost.latency_s / latency_s - 1)


def of_kind(rows: Sequence[Measured], kind: str) -> list[Measured]:
    """The rows that were measured on a kind of chip."""
    return [row for row in rows if row.point.chip.kind == kind]


def _name(point: Point) -> str:
    return BEST if point.runtime is None else point.runtime.name


def within(log_errors: Floats, half_width: Floats) -> Bools:
    """Which rows lie within their interval."""
    return np.asarray(np.abs(log_errors) <= half_width)
