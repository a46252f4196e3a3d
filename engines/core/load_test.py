"""The protocol of engines that have a client put a server under load.

Such an engine starts the client as often as the harness asks it to, at one rate of requests a run. The harness reads
the client's own result file, by the code that imports such files, and decides which rate is next.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from engines.core.engine import Engine, Facts
from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.core.row import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRules:
    """How the largest rate under limits is looked for, and how long each rate is kept.

    A rate is under the limits where a ``share`` of all requests sent is. From ``first_rate_per_s`` on, rates are
    doubled or halved until the largest lies between two of them, and bisected (geometrically) until these differ by
    less than ``rate_tolerance`` of the lower, or ``max_runs`` are done. A run sends requests for ``min_time_s``, and at
    least ``min_requests``.

    Raises:
        InvalidRequest: a value is out of its range.
    """

    share: float = 0.99
    first_rate_per_s: float = 1.0
    rate_tolerance: float = 0.05
    max_runs: int = 20
    min_time_s: float = 30.0
    min_requests: int = 100

    def __post_init__(self) -> None:
        for key, fits, law in (
            ("share", 0 < self.share <= 1, "a share above 0, at most 1"),
            ("first_rate_per_s", self.first_rate_per_s > 0, "a number > 0"),
            ("rate_tolerance", self.rate_tolerance > 0, "a number > 0"),
            ("max_runs", self.max_runs >= 2, "an integer ≥ 2"),
            ("min_time_s", self.min_time_s >= 0, "a number ≥ 0"),
            ("min_requests", self.min_requests >= 1, "an integer ≥ 1"),
        ):
            if not fits:
                raise InvalidRequest(
                    f"engine.{key}", getattr(self, key), f"must be {law}", "see conf/engine/serving.yaml"
                )

    def requests(self, requests_per_s: float | None) -> int:
        """Requests of a run at a rate; None is all at once."""
        timed = 0 if requests_per_s is None else round(self.min_time_s * requests_per_s)
        return max(self.min_requests, timed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientResult:
    """What a client left of one run: its result ``file``, of a ``format`` that can be imported.

    ``sent_per_s`` is the rate at which it really sent requests, and ``failed`` how many were not answered; None where
    the one is not known, and where the file says the other. ``watts`` tells the mean power of the server's chips in
    the run's busiest stretch of so many seconds, where they are on this machine, by ``energy_source``.
    """

    file: Path
    format: str
    sent_per_s: float | None = None
    failed: int | None = None
    watts: Callable[[float], float | None] | None = None
    energy_source: str | None = None


class Server(Protocol):
    """A server that answers, and the client for it."""

    rules: LoadRules

    @property
    def system(self) -> str | None:
        """What the server is, if the user said so or it was started here."""
        ...

    def load(self, requests_per_s: float | None, requests: int) -> ClientResult:
        """Send ``requests`` at a rate (None: all at once, as many in flight as the point says); return at the end.

        Raises:
            ShardbenchError: the client failed, or no request was answered.
        """
        ...

    def facts(self) -> Facts:
        """What is known of server and client."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class LoadTester(Engine):
    """An engine whose points are servers under load."""

    source: ClassVar[Source] = "measured"

    @abstractmethod
    def open(self, point: Point) -> Server:
        """Find the server, or start it.

        Raises:
            Unsupported: the client or the server cannot do what the point asks.
            ShardbenchError: no server answers.
        """
