"""Lower bound of a collective's time among GPUs that a switch connects.

Every GPU sends and receives at ``bytes_per_s`` at the same time, to and from any other. With S = bytes of the
larger side of one GPU and n GPUs in a group, each sends (and receives)

======================  =========================================
all-gather              S·(n−1)/n
reduce-scatter          the same
all-reduce              twice that: a reduce-scatter, an all-gather
all-to-all              S·(n−1)/n
collective-broadcast    S
collective-permute      S · the most sends or receipts of one GPU
======================  =========================================

(Rings: Patarasu and Yuan 2009.) Latency is left out, as no datasheet states it. So is reduction inside the switch,
which could halve an all-reduce.
"""

from collections import Counter
from typing import Final

from engines.compiled.cost.base import CollectiveTime
from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.replica_groups import parse_groups, parse_pairs

LANE: Final = "nvswitch"


def collective_time(collective: Collective, devices: int, bytes_per_s: float) -> CollectiveTime:
    """Time of one collective.

    Raises:
        UnreadableHlo: the notation of its groups is unknown.
    """
    if collective.opcode == "collective-permute":
        pairs = [(source, target) for source, target in parse_pairs(collective.pairs) if source != target]
        ends = (Counter(source for source, _ in pairs), Counter(target for _, target in pairs))
        sent = collective.shard_bytes * max((count for each in ends for count in each.values()), default=0)
    else:
        size = max(len(group) for group in parse_groups(collective.groups, devices))
        part = 1.0 if collective.opcode == "collective-broadcast" and size > 1 else (size - 1) / size
        sent = collective.whole_bytes * part * (2 if collective.opcode == "all-reduce" else 1)
    return CollectiveTime(seconds=sent / bytes_per_s, latency_s=0.0, lanes=(LANE,) if sent else ())
