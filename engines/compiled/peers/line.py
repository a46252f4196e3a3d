"""All layers of an unrolled program from two shallow ones: every layer after the first few adds the same.

Compiling takes time in proportion to the layers. Two depths tell what a layer adds and what the rest takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engines.compiled.cost.account import Account
from engines.compiled.target.memory import peak_bytes
from engines.compiled.timed import TimedProgram


@dataclass(frozen=True, slots=True)
class Depth:
    """A program with so many layers, timed."""

    layers: int
    program: TimedProgram


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPhase:
    """One phase with all layers: its account in seconds, and bytes of one device."""

    name: str
    account: Account
    peak_bytes: float
    temporary_bytes: float
    held_bytes: dict[str, float]
    depths: Sequence[Depth]

    @property
    def compile_s(self) -> float:
        """What compiling its programs took."""
        return sum(each.program.compiled.compile_s for each in self.depths)


def at_all_layers(name: str, depths: Sequence[Depth], layers: int) -> PeerPhase:
    """The phase with ``layers`` layers: of its one program, or on the line through two."""
    first, last = depths[0], depths[-1]
    steps = (layers - first.layers) / (last.layers - first.layers) if last.layers > first.layers else 1.0

    def line(start: float, end: float) -> float:
        return start + (end - start) * steps

    account = Account()
    account.add(first.program.account, 1 - steps)
    account.add(last.program.account, steps)
    if account.copy_wait_s < 0:  # the deeper program waits less for its copies: it computes meanwhile
        account.compute_s, account.copy_wait_s = account.compute_s + account.copy_wait_s, 0.0
    few, more = first.program.compiled, last.program.compiled
    held = {key: line(few.facts["held"][key], end) for key, end in more.facts["held"].items()}
    return PeerPhase(
        name=name,
        account=account,
        peak_bytes=line(peak_bytes(few.memory), peak_bytes(more.memory)),
        temporary_bytes=line(few.memory["temp"], more.memory["temp"]),
        held_bytes=held,
        depths=depths,
    )
