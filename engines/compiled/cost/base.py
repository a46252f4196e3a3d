"""A cost model: how long a device computes an instruction, and how long its links take for a collective."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.schedule import Step

Bound = Literal["compute", "memory"]
LINK: Final = "link"
"""What bounds a collective."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeTime:
    """Time of one instruction. ``is_estimated`` is False if it is only the time to move the instruction's bytes, and of
    one that no rule knows ``least_s`` is the least that it takes.

    ``bound`` is the roof that sets the time and ``flops`` counts its arithmetic, both None if the model has no figure.
    """

    seconds: float
    flops: float | None = None
    bound: Bound | None = None
    is_estimated: bool = True
    least_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveTime:
    """Time of one collective. ``lanes`` names the links that it occupies for ``seconds``, latency included."""

    seconds: float
    latency_s: float
    lanes: tuple[str, ...]


class CostModel(Protocol):
    """Times of one device and its links."""

    @property
    def hbm_bytes_per_s(self) -> float:
        """Bandwidth of the device's main memory."""
        ...

    def compute_time(self, step: Step) -> ComputeTime:
        """Time of a computation."""
        ...

    def collective_time(self, collective: Collective) -> CollectiveTime:
        """Time of a collective.

        Raises:
            ShardbenchError: no links connect the devices of its groups.
        """
        ...

    def best_case(self) -> "CostModel | None":
        """The model with effects that it leaves out, and that can only save time, at their best; None without any."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """The figures and constants behind its times, for a row's ``details``."""
        ...
