"""The copies to and from HBM that run beside the stream: one after the other, in the HBM time that the stream leaves.

A byte passes HBM once: while the stream reads and writes HBM itself, a copy gets the rest of the bandwidth. So a
program never takes less than all of its bytes at the full bandwidth.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy in flight, from ``start_s`` to ``end_s`` as far as is known."""

    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.end_s - self.start_s


class CopyQueue:
    """Copies by name, in the order in which they were issued."""

    def __init__(self) -> None:
        self._copies: dict[str, Copy] = {}
        self._free_s = 0.0

    def issue(self, name: str, now: float, seconds: float) -> None:
        """Queue a copy that takes ``seconds`` of HBM's whole bandwidth."""
        start = max(now, self._free_s)
        self._free_s = start + seconds
        self._copies[name] = Copy(start, self._free_s)

    def rename(self, name: str, other: str) -> None:
        """The copy goes by another name, if there is one."""
        if name in self._copies:
            self._copies[other] = self._copies.pop(name)

    def share(self, now: float, seconds: float, hbm_s: float) -> None:
        """From ``now`` on the stream takes ``hbm_s`` of ``seconds`` of HBM's time: what is queued gets the rest."""
        taken = min(hbm_s, seconds)
        left = seconds - taken
        if taken <= 0 or self._free_s <= now:
            return

        def later(moment: float) -> float:
            work = moment - now
            if work <= 0:
                return moment
            return moment + taken if work >= left else now + work * seconds / left

        self._free_s = later(self._free_s)
        for name, each in self._copies.items():
            if each.end_s > now:
                self._copies[name] = replace(each, start_s=later(each.start_s), end_s=later(each.end_s))

    def pop(self, name: str) -> Copy | None:
        """Take out a copy that is waited for; None if there is none of that name."""
        return self._copies.pop(name, None)
