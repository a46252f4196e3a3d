"""What the timeline asks of a machine: how long an instruction computes, and how long an exchange takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from engines.compiled.hlo.schedule import Collective, Step

Bound = Literal["compute", "memory"]
LINK: Final = "link"
"""What bounds an exchange."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeTime:
    """One instruction, timed. ``is_estimated`` is False where only the bytes that it moves tell its time.

    ``bound`` says what its time is of and ``flops`` counts its arithmetic, where the machine can tell.
    """

    seconds: float
    flops: float | None = None
    bound: Bound | None = None
    is_estimated: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveTime:
    """One collective, timed. ``lanes`` names the links that it keeps busy for ``seconds``, latency included."""

    seconds: float
    latency_s: float
    lanes: tuple[str, ...]


class CostModel(Protocol):
    """One device and its links, as far as time is concerned."""

    @property
    def hbm_bytes_per_s(self) -> float:
        """Bandwidth of the device's main memory."""
        ...

    def work(self, step: Step) -> ComputeTime:
        """Time a computation."""
        ...

    def exchange(self, collective: Collective) -> CollectiveTime:
        """Time a collective.

        Raises:
            ShardbenchError: its groups are none that this machine's links join.
        """
        ...

    def kindest(self) -> "CostModel | None":
        """The same with whatever it leaves out and could only make it faster, at its best; None where it has none."""
        ...

    def told(self) -> Mapping[str, Any]:
        """What a row says of the machine: the figures and constants behind its times."""
        ...
