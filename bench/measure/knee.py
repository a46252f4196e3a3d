"""The largest rate of requests that a server answers within limits, by doubling or halving and then bisection."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from engines.core.load_test import LoadRules

Run = TypeVar("Run")


@dataclass(slots=True)
class Knee(Generic[Run]):
    """``best``: the largest rate that was under the limits, and its run; None without one.

    ``above`` is the lowest rate that was not, None if there was none. ``tried`` are all rates in order, each with
    whether it was under the limits.
    """

    best: tuple[float, Run] | None = None
    above: float | None = None
    tried: list[tuple[float, bool]] = field(default_factory=list)

    @property
    def is_close(self) -> bool:
        """Whether the search ended for closeness, not for the number of runs."""
        return self.best is not None and self.above is not None


def find_knee(rules: LoadRules, at: Callable[[float], Run], is_under: Callable[[Run], bool]) -> Knee[Run]:
    """Search for the knee.

    Requests that wait grow with the rate, so that the rates under the limits are those below one rate, the knee, which
    lies between the two that this leaves, if every run is long enough for its queue to show. Bisected are logarithms.
    Distserve (Zhong et al. 2024, arXiv 2401.09670, section 2) calls this rate the goodput of a system.

    Args:
        rules: where to begin, how close to come, and in how many runs.
        at: runs the server at a rate in requests per second.
        is_under: whether a run was under the limits.
    """
    found: Knee[Run] = Knee()
    rate = rules.first_rate_per_s
    while len(found.tried) < rules.max_runs:
        run = at(rate)
        under = is_under(run)
        found.tried.append((rate, under))
        if under:
            found.best = rate, run
        else:
            found.above = rate
        if found.best is None:
            rate /= 2
        elif found.above is None:
            rate *= 2
        elif found.above <= found.best[0] * (1 + rules.rate_tolerance):
            break
        else:
            rate = math.sqrt(found.above * found.best[0])
    return found
