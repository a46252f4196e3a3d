"""One hierarchical model of all rows: which parameters make each row's constants.

The logarithm of a constant is a sum of parameters: the median of its kind and how its chip differs, or the median of
NCCL and how its runtime differs, or one of the runtime's own. A chip or a runtime without rows has its own differences
at 0, and so inherits the median.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, NamedTuple

import numpy as np

from engines.analytic.constants import BOUNDS, OWNER, Constants, from_mapping
from engines.analytic.cost import Cost
from engines.analytic.grid import Bools, Floats, Grid, constants_read, grid_of
from engines.analytic.predict import predict
from engines.analytic.priors import CHIPS, NCCL, NCCL_RUNTIMES, RUNTIMES, SHARED_OVERLAP, USUAL, Prior
from engines.core.point import Point
from engines.core.runtime import BEST

STEP: Final = 1e-4
"""Step of the derivative by a parameter, a logarithm."""


class Name(NamedTuple):
    """A parameter: whose it is (a chip, a runtime, a kind, ``nccl``), and of which constant."""

    owner: str
    constant: str


@dataclass(frozen=True, slots=True)
class Value:
    """A constant of a chip or a runtime: the parameters whose sum is its logarithm, or what is stated."""

    names: tuple[Name, ...] = ()
    stated: float | None = None


@dataclass(slots=True)
class Priors:
    """Mean and width of each parameter's normal prior, filled as constants are asked for.

    ``own`` replaces the prior of a runtime's or a chip's constant: a later fit starts from what an earlier one found.
    """

    mean: dict[Name, float] = field(default_factory=dict)
    width: dict[Name, float] = field(default_factory=dict)
    own: Mapping[tuple[str, str], Prior] = field(default_factory=dict)

    def value(self, kind: str, chip: str, runtime: str, constant: str) -> Value:
        """The constant of a chip and a runtime."""
        owner = chip if OWNER[constant] == "chip" else runtime
        if (owner, constant) in self.own:
            return self._one(owner, constant, self.own[owner, constant])
        if OWNER[constant] == "chip":
            shared = CHIPS[kind].get(constant)
            return Value(stated=_default(constant)) if shared is None else self._two(kind, chip, constant, *_of(shared))
        prior = RUNTIMES.get(runtime, {}).get(constant)
        if prior is None and runtime in NCCL_RUNTIMES and constant in NCCL:
            return self._two("nccl", runtime, constant, *_of(NCCL[constant]))
        if prior is None:
            prior = USUAL[kind].get(constant)
        if prior is None:
            return Value(stated=_default(constant))
        return self._one(kind if constant == SHARED_OVERLAP else runtime, constant, prior)

    def _one(self, owner: str, constant: str, prior: Prior) -> Value:
        if prior.width == 0:
            return Value(stated=prior.value)
        return Value((self._add(Name(owner, constant), float(np.log(prior.value)), prior.width),))

    def _two(self, above: str, owner: str, constant: str, prior: Prior, spread: float) -> Value:
        if prior.width == 0:
            return Value(stated=prior.value)
        median = self._add(Name(above, constant), float(np.log(prior.value)), prior.width)
        if owner == above:  # the median itself, which a chip without rows takes
            return Value((median,))
        return Value((median, self._add(Name(owner, constant), 0.0, spread)))

    def _add(self, name: Name, mean: float, width: float) -> Name:
        self.mean[name], self.width[name] = mean, width
        return name


def _of(shared: Any) -> tuple[Prior, float]:
    return shared.median, shared.spread


def _default(constant: str) -> float:
    default: Any = next(each.default for each in fields(Constants) if each.name == constant)
    return float(default)


def constants_with(priors: Priors, logs: Mapping[Name, float], kind: str, chip: str, runtime: str) -> dict[str, float]:
    """Constant → value of a chip and a runtime, with the parameters ``logs``; others are at their means."""
    found = {}
    for constant in BOUNDS:
        value = priors.value(kind, chip, runtime, constant)
        if value.stated is not None:
            found[constant] = value.stated
        else:
            log = sum(logs.get(name, priors.mean[name]) for name in value.names)
            found[constant] = float(np.clip(np.exp(log), BOUNDS[constant].low, BOUNDS[constant].high))
    return found


class Rows:
    """The rows of one kind of chip, as a function of the parameters."""

    def __init__(self, points: Sequence[Point], priors: Priors) -> None:
        """``points`` [rows] with their runtimes."""
        kind = points[0].chip.kind
        start = from_mapping(constants_with(priors, {}, kind, points[0].chip.name, _runtime(points[0])))
        self.grid: Grid = grid_of(points, start)
        places: dict[Name, int] = {}
        self._index: dict[str, np.ndarray] = {}
        self._stated: dict[str, Floats] = {}
        read = [constants_read(point) for point in points]
        for array in read[0]:
            values = [
                priors.value(kind, point.chip.name, _runtime(point), each[array])
                for point, each in zip(points, read, strict=True)
            ]
            for value in values:
                for name in value.names:
                    places.setdefault(name, len(places))
            self._stated[array] = np.asarray([np.nan if each.stated is None else each.stated for each in values])
            deep = max(len(each.names) for each in values)
            index = np.full((deep, len(points)), -1)
            for row, value in enumerate(values):
                for level, name in enumerate(value.names):
                    index[level, row] = places[name]
            self._index[array] = index
        self.names: tuple[Name, ...] = tuple(places)
        self.mean: Floats = np.asarray([priors.mean[name] for name in self.names])
        self.width: Floats = np.asarray([priors.width[name] for name in self.names])
        self.touched: Bools = self._touched(len(points))
        self._together = self._disjoint()

    def log_latency(self, logs: Floats) -> Floats:
        """Logarithm of the predicted seconds [rows]."""
        return np.asarray(np.log(self.cost(logs).latency_s))

    def cost(self, logs: Floats) -> Cost:
        """The predicted times [rows]."""
        padded = np.append(logs, 0.0)
        arrays: dict[str, Any] = {
            name: self._array(name, padded[index].sum(axis=0)) for name, index in self._index.items()
        }
        return predict(replace(self.grid, **arrays)).cost

    def _array(self, name: str, logs: Floats) -> Floats:
        """Values [rows] of an array of the grid; beyond a constant's bound they are at it."""
        bound = BOUNDS.get(name, BOUNDS["stream_16bit"])
        values = np.clip(np.exp(logs), bound.low, bound.high)
        return np.where(np.isnan(self._stated[name]), values, self._stated[name])

    def jacobian(self, logs: Floats) -> Floats:
        """Derivatives of :meth:`log_latency` [rows, parameters].

        Parameters that no row has in common are moved at once.
        """
        base = self.log_latency(logs)
        found = np.zeros(self.touched.shape)
        for group in self._together:
            moved = logs.copy()
            moved[group] += STEP
            slope = (self.log_latency(moved) - base) / STEP
            for column in group:
                found[:, column] = np.where(self.touched[:, column], slope, 0.0)
        return found

    def _touched(self, rows: int) -> Bools:
        touched = np.zeros((rows, len(self.names)), dtype=bool)
        for index in self._index.values():
            for level in index:
                has = np.flatnonzero(level >= 0)
                touched[has, level[has]] = True
        return touched

    def _disjoint(self) -> list[list[int]]:
        groups: list[list[int]] = []
        for column in np.argsort(-self.touched.sum(axis=0), kind="stable"):
            free = (g for g in groups if not (self.touched[:, g].any(axis=1) & self.touched[:, column]).any())
            group = next(free, None)
            if group is None:
                groups.append([int(column)])
            else:
                group.append(int(column))
        return groups


def _runtime(point: Point) -> str:
    return BEST if point.runtime is None else point.runtime.name
