"""What a walked schedule draws: bars, and the loops around them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One bar of the trace: a lane, a start, a duration, a category, and ``turns``, how often it runs in all.

    ``note`` is an opcode or, in the compute lane, ``matmul``, ``exposed`` and ``copy wait`` (the stream waits for a
    collective or a copy), or ``turns`` for the remaining iterations of a loop, which the first one's ``turns`` already
    count and so have 0 ``turns`` themselves: Σ seconds · turns of that lane is the account's total. ``bytes`` is the
    HBM traffic or, on a link, the collective's bytes per chip; ``latency_s`` the part of a collective's time that does
    not depend on its size. ``flops``, the compiler's ``cycles`` and ``bound`` are None if unknown. ``loop`` is the
    index of the innermost loop around the bar, 0 outside of all; ``repeats`` is the index of the loop whose remaining
    iterations the bar stands for, 0 for any other bar.
    """

    lane: str
    name: str
    start_s: float
    seconds: float
    note: str = ""
    turns: int = 1
    bytes: float = 0.0
    latency_s: float = 0.0
    flops: float | None = None
    cycles: int | None = None
    bound: str | None = None
    loop: int = 0
    repeats: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop of two turns or more, of which the first is drawn from ``start_s`` on for ``turn_s``.

    ``index`` is 1 or more and no other loop's; ``parent`` is the loop around it, 0 outside of all. Its ``turns`` follow
    one another, and the whole loop runs ``runs`` times in the program.
    """

    index: int
    name: str
    parent: int
    turns: int
    runs: int
    start_s: float
    turn_s: float
