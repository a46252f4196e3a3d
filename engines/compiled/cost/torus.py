"""Time of a collective on a torus, and the links that it occupies.

Every link is one direction of one axis, ``(axis, ±1)``, at ``Chip.link_bytes_per_s``. With S = ``whole_bytes`` (the
larger side of one chip), N chips in a group, n_a chips along axis a:

======================  ==========================================  ===============================
collective              bytes through the busiest link              steps, one hop each
======================  ==========================================  ===============================
all-gather              S·(N−1)/N / links                           Σ (n_a − 1)
reduce-scatter          the same                                    the same
all-reduce              twice that                                  twice that
all-to-all              S·n_a/8 along the longest wrapped axis,     Σ n_a/2 (wrapped), Σ (n_a − 1)
                        S·n_a/4 along one that does not wrap
collective-permute      S · sends that share a link                 hops of the farthest send
======================  ==========================================  ===============================

``links`` is the number of directed links that share the bytes: two an axis, fewer if the compiler's ring strategy has
fewer colors (a color of a UniDirection strategy is one direction, of another both). Along an axis that does not wrap, a
ring runs there and back, so both directions carry every byte and count as one link.
(Bytes of rings: Patarasu and Yuan 2009; all-to-all: half of each half's bytes cross the middle of the axis.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engines.compiled.cost import parts
from engines.compiled.cost.base import CollectiveTime
from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.replica_groups import Hop, group_axes, parse_groups, parse_pairs, permute_hops
from engines.core.chip import LinkConstants
from engines.core.errors import ShardbenchError


@dataclass(frozen=True, slots=True, kw_only=True)
class Torus:
    """The mesh that devices are numbered by: its sizes, which axes wrap, and one link's bandwidth in bytes/s.

    ``places`` holds the number of the device of each of a program's partitions; empty where they are the same.
    """

    shape: tuple[int, ...]
    wrap: tuple[bool, ...]
    link_bytes_per_s: float
    places: tuple[int, ...] = ()

    @property
    def devices(self) -> int:
        """Number of devices that the program runs on."""
        return len(self.places) or math.prod(self.shape)

    def placed(self, partitions: Sequence[int]) -> list[int]:
        """The devices of these partitions.

        Raises:
            ShardbenchError: there is no such partition.
        """
        try:
            return [self.places[each] for each in partitions] if self.places else list(partitions)
        except IndexError:
            raise ShardbenchError(
                f"partition {max(partitions)}: is not one of the {self.devices} devices; use as many chips as the "
                "program was compiled for"
            ) from None


def collective_time(collective: Collective, torus: Torus, constants: LinkConstants) -> CollectiveTime:
    """Time of one collective.

    Groups that are no product of whole axes are timed by :mod:`engines.compiled.cost.parts`.

    Raises:
        ShardbenchError: its groups name a device that is not there.
    """
    rate = torus.link_bytes_per_s * constants.link_efficiency
    if collective.opcode == "collective-permute":
        pairs = [(source, target) for source, target in map(torus.placed, parse_pairs(collective.pairs))]
        loads, farthest = permute_hops(pairs, torus.shape, torus.wrap)
        latency = constants.launch_s + farthest * constants.hop_s
        busiest = max(loads.values(), default=0)
        seconds = latency + busiest * collective.shard_bytes / rate if busiest else 0.0
        links = tuple(sorted(loads, key=lambda hop: (hop.axis, hop.step)))
        return CollectiveTime(
            seconds=seconds,
            latency_s=latency if busiest else 0.0,
            lanes=tuple(lane_name(hop) for hop in links),
        )
    groups = [torus.placed(group) for group in parse_groups(collective.groups, torus.devices)]
    axes = group_axes(groups, torus.shape)
    if axes is None:
        passed, steps, busy = parts.passes(collective, groups, torus.shape, torus.wrap)
        latency = constants.launch_s + steps * constants.hop_s
        return CollectiveTime(
            seconds=latency + passed / rate, latency_s=latency, lanes=tuple(lane_name(hop) for hop in busy)
        )
    if not axes:
        return CollectiveTime(seconds=0.0, latency_s=0.0, lanes=())
    if collective.opcode in ("all-to-all", "ragged-all-to-all"):
        passed = max(collective.whole_bytes * _crossing(torus, axis) for axis in axes)
        steps = sum(torus.shape[axis] // 2 if torus.wrap[axis] else torus.shape[axis] - 1 for axis in axes)
    else:
        size = math.prod(torus.shape[axis] for axis in axes)
        passes = 2 if collective.opcode == "all-reduce" else 1
        passed = passes * collective.whole_bytes * (size - 1) / size / _links(collective, torus, axes)
        steps = passes * sum(torus.shape[axis] - 1 for axis in axes)
    latency = constants.launch_s + steps * constants.hop_s
    return CollectiveTime(
        seconds=latency + passed / rate,
        latency_s=latency,
        lanes=tuple(lane_name(Hop(axis, step)) for axis in axes for step in (-1, 1)),
    )


def lane_name(link: Hop) -> str:
    """Name of a directed link, such as ``x +``; a fourth axis connects the cores of one chip."""
    return f"{('x', 'y', 'z', 'cores')[link.axis]} {'+' if link.step > 0 else '-'}"


def _links(collective: Collective, torus: Torus, axes: Sequence[int]) -> float:
    """Directed links that share the bytes of a ring collective."""
    most = sum(2 if torus.wrap[axis] and torus.shape[axis] > 2 else 1 for axis in axes)
    if collective.colors is None:
        return most
    return max(1, min(most, collective.colors * (1 if collective.strategy.startswith("UniDirection") else 2)))


def _crossing(torus: Torus, axis: int) -> float:
    """Bytes of an all-to-all over the busiest link of an axis, as a multiple of one chip's bytes."""
    size = torus.shape[axis]
    return size / 8 if torus.wrap[axis] and size > 2 else size / 4
