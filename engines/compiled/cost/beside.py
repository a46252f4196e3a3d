"""What runs beside the stream of a computation: collectives on links, copies to and from HBM."""

from dataclasses import dataclass, field

from engines.compiled.cost.copies import CopyQueue
from engines.compiled.hlo.schedule import Step


@dataclass(slots=True)
class Running:
    """An asynchronous collective, or a transfer from the host, in flight."""

    end_s: float
    seconds: float
    step: Step


@dataclass(slots=True)
class Beside:
    """What runs beside the stream of one computation: when its links are free, what is in flight, by the start's name.

    ``copying`` are the starts of the ``copies`` in flight.
    """

    links: dict[str, float] = field(default_factory=dict)
    sending: dict[str, Running] = field(default_factory=dict)
    copies: CopyQueue = field(default_factory=CopyQueue)
    copying: dict[str, Step] = field(default_factory=dict)

    def rename(self, name: str, other: str) -> None:
        """What is in flight goes by another name, if there is anything."""
        if name in self.sending:
            self.sending[other] = self.sending.pop(name)
        if name in self.copying:
            self.copying[other] = self.copying.pop(name)
            self.copies.rename(name, other)
