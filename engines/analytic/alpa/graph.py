"""A graph of operators: what each costs in each of its shardings, and each pair of shardings between two of them.

Seconds are of one forward pass, over all layers; bytes are of one chip.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Choice = Mapping[str, str]
"""Name of an operator → the sharding that it has: roles of :mod:`engines.analytic.alpa.roles`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An operator and its ``shardings``; arrays have one entry for each of them.

    ``compute_s`` and ``memory_s`` overlap for ``overlapped_s``; ``fetched_s`` is the reading of weights that is left
    of that, which may run while the chip waits for others, for ``waiting_s`` of collectives of its own. ``held_bytes``
    are there all the time, ``work_bytes`` while it runs.
    """

    name: str
    shardings: Sequence[str]
    compute_s: Floats
    memory_s: Floats
    overlapped_s: Floats
    fetched_s: Floats
    waiting_s: Floats
    held_bytes: Floats
    work_bytes: Floats

    @property
    def busy_s(self) -> Floats:
        """Compute and memory with what overlaps counted once."""
        return self.compute_s + self.memory_s - self.overlapped_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Collectives between two operators, ``waiting_s`` [shardings of one, of the other], and bytes written to HBM."""

    ends: tuple[str, str]
    waiting_s: Floats
    memory_s: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The sums of a choice, in seconds: what :class:`Graph` adds up."""

    compute_s: float = 0.0
    memory_s: float = 0.0
    overlapped_s: float = 0.0
    fetched_s: float = 0.0
    waiting_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Operators and edges of a pass that takes ``fixed_s`` besides; a chip has ``usable_bytes``.

    A pass takes compute + memory − overlapped + waiting + fixed − prefetch · min(waiting + fixed, fetched): the closed
    form (:func:`engines.analytic.tpu_torus.together`, without loops), with compute and memory overlapping inside each
    operator rather than over the whole pass. ``constant_bytes`` are there whatever the choice.
    """

    operators: Sequence[Operator]
    edges: Sequence[Edge]
    fixed_s: float
    prefetch: float
    usable_bytes: float
    constant_bytes: float = 0.0

    def terms(self, choice: Choice) -> Terms:
        """The sums of a choice."""
        place = {each.name: each.shardings.index(choice[each.name]) for each in self.operators}
        sums = dict.fromkeys(("compute_s", "memory_s", "overlapped_s", "fetched_s", "waiting_s"), 0.0)
        for each in self.operators:
            for name in sums:
                sums[name] += float(getattr(each, name)[place[each.name]])
        for edge in self.edges:
            at = place[edge.ends[0]], place[edge.ends[1]]
            sums["waiting_s"] += float(edge.waiting_s[at])
            sums["memory_s"] += float(edge.memory_s[at])
        return Terms(**sums)

    def seconds(self, choice: Choice) -> float:
        """Seconds of a pass with that choice."""
        found = self.terms(choice)
        busy = found.compute_s + found.memory_s - found.overlapped_s
        return busy + found.waiting_s + self.fixed_s - self.hidden_s(choice)

    def hidden_s(self, choice: Choice) -> float:
        """Seconds of waiting under which the next weights are fetched."""
        found = self.terms(choice)
        return self.prefetch * min(found.waiting_s + self.fixed_s, found.fetched_s)

    def held_bytes(self, choice: Choice) -> float:
        """Bytes that a chip holds all the time."""
        places = [(each, each.shardings.index(choice[each.name])) for each in self.operators]
        return self.constant_bytes + sum(float(each.held_bytes[at]) for each, at in places)

    def peak_bytes(self, choice: Choice) -> float:
        """Most bytes of a chip at once."""
        places = [(each, each.shardings.index(choice[each.name])) for each in self.operators]
        return self.held_bytes(choice) + max(float(each.work_bytes[at]) for each, at in places)

    def fits(self, choice: Choice) -> bool:
        """Whether that is what a chip has."""
        return self.peak_bytes(choice) <= self.usable_bytes * (1 + 1e-9)

    @property
    def least_s(self) -> float:
        """No choice takes less: every operator as fast as it can be, and nothing sent."""
        return float(sum(each.busy_s.min() for each in self.operators)) + (1 - self.prefetch) * self.fixed_s

    def without(self, name: str) -> "Graph":
        """The graph without an operator and its edges."""
        return replace(
            self,
            operators=[each for each in self.operators if each.name != name],
            edges=[each for each in self.edges if name not in each.ends],
        )

    def allows(self, choice: Choice) -> bool:
        """Whether every operator has that sharding."""
        return all(choice.get(each.name) in each.shardings for each in self.operators)
