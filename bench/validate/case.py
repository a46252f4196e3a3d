"""A measured time to validate against, and what of a user's data could not be used."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.core.runtime import AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line: the point and its time in seconds (None if it was out of memory).

    ``runtime`` is the one that ran, ``auto`` where nobody says. ``derived`` is the rule by which the time follows from
    a throughput, None where the time is stated. ``extra`` holds the columns that have no meaning here, as text.
    """

    file: str
    line: int
    system: str
    reference: str
    point: Point
    latency_s: float | None
    oom: bool
    runtime: str = AUTO
    derived: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """``mine.csv:3``."""
        return f"{self.file}:{self.line}"

    @property
    def batch(self) -> str:
        """The batch in steps of eight: ``1``, ``2–8``, ``9–64``, ``65–512``."""
        below, size = 1, self.point.batch_size
        while size > 8 * below:
            below *= 8
        return "1" if size == 1 else f"{below + 1}–{8 * below}"

    @property
    def parallelism(self) -> str:
        """``tp8 pp3`` on GPUs, else chips, layout and sharding."""
        if self.point.chip.kind == "gpu":
            return f"tp{self.point.tensor_degree} pp{self.point.pipeline_degree}"
        return f"{self.point.num_chips} chips {self.point.ffn_layout} {self.point.attn_sharding}"


@dataclass(frozen=True, slots=True)
class Unused:
    """A line that is no case, with the reason in one sentence; ``line`` is None where it is a whole file."""

    file: str
    line: int | None
    reason: str

    @property
    def place(self) -> str:
        """``mine.csv:3``, or ``mine.csv``."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What files and folders hold, in their order."""

    cases: Sequence[Case] = ()
    unused: Sequence[Unused] = ()

    def checked(self, data: str) -> "Reading":
        """Itself, if it holds a case; ``data`` is what was read.

        Raises:
            InvalidRequest: it holds none; gives the first reason.
        """
        if self.cases:
            return self
        first = f"{self.unused[0].place}: {self.unused[0].reason}" if self.unused else "there are no rows"
        more = f" (and {len(self.unused) - 1} more)" if len(self.unused) > 1 else ""
        raise InvalidRequest("data", data, f"holds no usable row: {first}{more}", "correct it, or use other files")


def merged(readings: Iterable[Reading]) -> Reading:
    """All readings as one."""
    several = list(readings)
    return Reading(
        [case for each in several for case in each.cases], [line for each in several for line in each.unused]
    )
