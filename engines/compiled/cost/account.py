"""The sums of a walked schedule, and what it leaves open."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Account:
    """Seconds of one walk, loops multiplied by their trip counts.

    ``compute_s`` is the stream computing; ``memory_s`` the HBM traffic at full bandwidth, which is part of it;
    ``communication_s`` all collectives, of which ``overlapped_s`` overlaps the stream and ``exposed_s`` does not;
    ``copy_wait_s`` is time waiting for copies. Total = compute + exposed + copy wait.

    ``unestimated`` counts the instructions that only their bytes and operations time, by label, and
    ``unestimated_by_label_s`` their seconds; ``unknown_s`` is the part of instructions that no rule knows, which may
    take anything between nothing and this, and ``at_least_s`` that of kernels, sorts and transfers with the host that
    may take any longer: they are charged the roofline of what their author states, and HBM's bandwidth.
    """

    total_s: float = 0.0
    compute_s: float = 0.0
    memory_s: float = 0.0
    communication_s: float = 0.0
    overlapped_s: float = 0.0
    exposed_s: float = 0.0
    latency_s: float = 0.0
    copy_wait_s: float = 0.0
    hbm_bytes: float = 0.0
    flops: float = 0.0
    by_kind: Counter[str] = field(default_factory=Counter)
    unestimated: Counter[str] = field(default_factory=Counter)
    unestimated_s: float = 0.0
    unestimated_by_label_s: Counter[str] = field(default_factory=Counter)
    unknown_s: float = 0.0
    at_least_s: float = 0.0

    def add(self, other: "Account", times: float) -> None:
        """Add another walk ``times`` times."""
        for name in (
            "total_s", "compute_s", "memory_s", "communication_s", "overlapped_s", "exposed_s", "latency_s",
            "copy_wait_s", "hbm_bytes", "flops", "unestimated_s", "unknown_s", "at_least_s",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        for mine, others in (
            (self.by_kind, other.by_kind),
            (self.unestimated, other.unestimated),
            (self.unestimated_by_label_s, other.unestimated_by_label_s),
        ):
            for name, amount in others.items():
                mine[name] += amount * times  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Branch:
    """A conditional that runs ``turns`` times: seconds of each of its branches, in their order."""

    name: str
    turns: int
    seconds: tuple[float, ...]
