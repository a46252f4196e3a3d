"""Steps in the times of one point over many nights: found once two nights in a row agree, never by one alone.

The nights since the last step are a level: its median, and a noise between nights. A night's time is beyond the level
where it differs by more than chance allows one night in a few dozen; two such nights in a row, on the same side, are a
step at the first of them. Medians and differences between neighbours keep single noisy nights and slow drifts out of
the level and the noise. Going through the nights in order, what is found is what would have been said on each night.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import fmean, median
from typing import Final

MAD_TO_STD: Final = 1.4826
"""Standard deviation over median absolute deviation of normal values."""
MEDIAN_VARIANCE: Final = math.pi / 2
"""Variance of the median of n normal values times n, over theirs."""
MAD_EFFICIENCY: Final = 0.37
"""Values that the standard deviation needs for the precision that this estimate has of one."""
PRIOR_FREEDOM: Final = 4.0
"""Degrees of freedom given to the noise of all points together, as in :mod:`bench.measure.significance`."""
LEAST_NOISE: Final = 0.002
"""Noise that is always allowed for: shared clocks and temperatures move all nights by so much."""

LEAST_LEVEL: Final = 2
"""Nights of a level before it can end: one noisy night is none."""
LEAST_NIGHTS: Final = LEAST_LEVEL + 2
"""Nights that a point needs before a step can be told: a level, and two that agree."""
AGREEMENT: Final = 2.6
"""Standard deviations by which two nights of one level may differ: 99% of nights do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRules:
    """``false_alarms`` is the probability of a step where there is none, for one point and night, at normal noise.

    Steps whose two nights differ from the level by less than ``smallest`` in the mean are not reported.
    ``window`` nights are a level's at most.
    """

    false_alarms: float = 5e-4
    smallest: float = 0.03
    window: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From night ``first`` on times are ``ratio`` times what they were; ``confirmed`` is the night that says so.

    Both are indices of the series. ``noise`` is the standard deviation between nights, of log times.
    """

    first: int
    confirmed: int
    ratio: float
    noise: float


def noise_between(logs: Sequence[float]) -> tuple[float, float]:
    """Standard deviation between nights of one level, and the degrees of freedom of its estimate; (0, 0) of one night.

    From differences of neighbours, so that a step or a drift adds little.
    """
    differences = [abs(now - before) for before, now in pairwise(logs)]
    if not differences:
        return 0.0, 0.0
    return median(differences) * MAD_TO_STD / math.sqrt(2), MAD_EFFICIENCY * len(differences)


def common_noise(series: Sequence[Sequence[float]]) -> float:
    """The noise that points without a history of their own are given: the median over points of one machine."""
    found = [noise for noise, freedom in map(noise_between, series) if freedom]
    return max(LEAST_NOISE, median(found)) if found else math.nan


def find_steps(times: Sequence[float], common: float, rules: StepRules) -> list[Step]:
    """The steps of one point; ``times`` in seconds a night, oldest first, without gaps.

    ``common`` is :func:`common_noise`. Two nights are the least that make a level.

    Raises:
        ValueError: a time is not a positive number.
    """
    if not all(time > 0 and math.isfinite(time) for time in times):
        raise ValueError("times must be positive numbers")
    logs = [math.log(time) for time in times]  # lists: a night's few values are too few to be worth an array
    steps: list[Step] = []
    begin = 0
    for night in range(LEAST_LEVEL + 1, len(logs)):
        if night - 1 - begin < LEAST_LEVEL:
            continue
        level = logs[max(begin, night - 1 - rules.window) : night - 1]
        noise, freedom = _noise(level, common)
        middle = median(level)
        beyond = [each - middle for each in logs[max(begin, night - 2) : night + 1]]
        if _is_step(beyond, _limit(len(level), noise, freedom, rules), noise, rules):
            step = Step(first=night - 1, confirmed=night, ratio=math.exp(fmean(beyond)), noise=noise)
            steps.append(step)
            begin = night - 1
    return [_settled(step, logs, begins, ends) for step, begins, ends in _segments(steps, len(logs))]


def smallest_found(noise: float, nights: int, rules: StepRules) -> float:
    """The step, as a fraction, that two nights confirm with a probability of 95% at this noise."""
    limit = _limit(nights, noise, PRIOR_FREEDOM + MAD_EFFICIENCY * max(0, nights - 1), rules)
    # Each of two nights exceeds the limit with a probability of √0.95, their mean a bound with one of 0.95.
    return math.expm1(max(limit + 1.955 * noise, math.log1p(rules.smallest) + 1.645 * noise / math.sqrt(2)))


def _noise(level: Sequence[float], common: float) -> tuple[float, float]:
    """Noise of a level, moderated by the common one, and its degrees of freedom."""
    own, freedom = noise_between(level)
    prior = own if math.isnan(common) else common
    variance = (PRIOR_FREEDOM * prior**2 + freedom * own**2) / (PRIOR_FREEDOM + freedom)
    return max(LEAST_NOISE, math.sqrt(variance)), PRIOR_FREEDOM + freedom


def _limit(nights: int, noise: float, freedom: float, rules: StepRules) -> float:
    """How far each of two nights must be beyond a level of so many nights."""
    return _quantile(math.sqrt(rules.false_alarms / 2), freedom) * noise * math.sqrt(1 + MEDIAN_VARIANCE / nights)


@cache
def _quantile(above: float, freedom: float) -> float:
    """The value that Student's t exceeds with probability ``above``."""
    from scipy.stats import t

    return float(t.isf(above, freedom))


def _is_step(beyond: Sequence[float], limit: float, noise: float, rules: StepRules) -> bool:
    """Whether the last two nights are a step, as logs beyond the level.

    They are where they agree with each other; nights that other load disturbed are slow by different amounts. A third
    night beyond the limit takes the place of agreement, so that a drift is found as well.
    """
    first, second = beyond[-2:]
    side = math.copysign(1, first)
    if min(side * first, side * second) < limit or abs(first + second) / 2 < math.log1p(rules.smallest):
        return False
    agree = abs(second - first) <= AGREEMENT * math.sqrt(2) * noise
    return agree or (len(beyond) == 3 and side * beyond[0] >= limit)


def _segments(steps: Sequence[Step], nights: int) -> list[tuple[Step, int, int]]:
    """Each step with the first night of the level before it and the last of its own."""
    begins = [0, *(step.first for step in steps)]
    ends = [*(step.first for step in steps[1:]), nights]
    return list(zip(steps, begins, ends, strict=False))


def _settled(step: Step, logs: Sequence[float], begin: int, end: int) -> Step:
    """The step with the ratio of the whole levels around it."""
    ratio = math.exp(median(logs[step.first : end]) - median(logs[begin : step.first]))
    return Step(first=step.first, confirmed=step.confirmed, ratio=ratio, noise=step.noise)
