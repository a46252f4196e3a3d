"""A compiled program's trace, read from its file: one turn of the loop over layers, and what is seen in it.

The file is Chrome's trace events as ``engines/compiled/perfetto.py`` writes them, which Perfetto opens too.
"""

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engines.core.errors import ShardbenchError

FOLDER: Final = "traces"
"""In a results folder, where the trace files of its rows are looked for."""
COMPUTE: Final = "compute"
MATMUL: Final = "matmul"
EXPOSED: Final = "exposed"
COPY_WAIT: Final = "copy wait"
MORE_TURNS: Final = "turns"
PERMUTE: Final = "collective-permute"
LEAST_TOLD: Final = 0.005
"""The part of a turn from which on waiting for copies is told."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One slice of a lane. ``weight`` is how often it runs in one turn of the loop over layers.

    That is 0 for the bar of an inner loop's further turns: they are counted with its first.
    """

    lane: str
    name: str
    kind: str
    start_s: float
    seconds: float
    weight: float
    latency_s: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopIteration:
    """One turn of the loop over layers: ``loops`` times ``turns`` of them are ``whole_s`` with what is around them.

    ``loops`` is how often the whole loop runs (a decode's steps). Bars begin at 0.
    """

    turns: int
    loops: int
    seconds: float
    whole_s: float
    bars: Sequence[Bar]

    @property
    def lanes(self) -> list[str]:
        """Labels of the lanes that have a bar, in the order of the file."""
        return list(dict.fromkeys(bar.lane for bar in self.bars))

    def stream_s(self) -> Counter[str]:
        """Seconds of the compute lane by kind, which are the turn's: matmul, exposed, copy wait, and ``other``."""
        found: Counter[str] = Counter()
        known = (MATMUL, EXPOSED, COPY_WAIT)
        for bar in self.bars:
            if bar.lane == COMPUTE:
                found[bar.kind if bar.kind in known else "other"] += bar.seconds * bar.weight  # type: ignore[assignment]
        return found

    def product_bytes_per_s(self) -> float | None:
        """HBM traffic while matrices are multiplied; None where none are."""
        products = [bar for bar in self.bars if bar.lane == COMPUTE and bar.kind == MATMUL]
        seconds = sum(bar.seconds * bar.weight for bar in products)
        return sum(bar.bytes * bar.weight for bar in products) / seconds if seconds else None

    def exchanges(self) -> dict[str, Bar]:
        """Every exchange once, by name: on the first link that it keeps busy."""
        return {bar.name: bar for bar in reversed(self.bars) if bar.lane.startswith("link")}

    def exposed_by_s(self) -> Counter[str]:
        """Seconds for which the stream waits for exchanges, by their kind."""
        exchanges, found = self.exchanges(), Counter[str]()
        for bar in self.bars:
            if bar.kind == EXPOSED:
                kind = exchanges[bar.name].kind if bar.name in exchanges else "others"
                found[kind] += bar.seconds * bar.weight  # type: ignore[assignment]
        return found

    def told(self) -> str:
        """What is seen in the turn."""
        exposed, stream = self.exposed_by_s(), self.stream_s()
        share = {kind: stream[kind] / self.seconds for kind in (MATMUL, "other", EXPOSED, COPY_WAIT)}
        each = "" if self.loops == 1 else f" in each of {self.loops} steps"
        inside = self.seconds * self.turns * self.loops
        told = (
            f"One turn of {self.turns} of the loop over layers{each}: {in_words(self.seconds)}; all turns are "
            f"{in_words(inside)} of {in_words(self.whole_s)}. Of the turn {share[MATMUL]:.1%} are matrix products, "
            f"{share['other']:.1%} other computation and {share[EXPOSED]:.1%} exposed communication"
        )
        if exposed:
            parts = ", ".join(f"{kind} {in_words(seconds)}" for kind, seconds in exposed.most_common())
            told += f" ({parts}; {in_words(self._exposed_latency_s())} of it hops and starts, whatever the size)"
        if share[COPY_WAIT] > LEAST_TOLD:
            told += f"; {share[COPY_WAIT]:.1%} wait for copies"
        sent_s = sum(bar.seconds * bar.weight for bar in self.exchanges().values() if bar.kind == PERMUTE)
        if sent_s:
            beside = max(0.0, 1 - exposed[PERMUTE] / sent_s)
            told += f". Permutes take {in_words(sent_s)}, {beside:.1%} of it beside computation"
        return told + "."

    def _exposed_latency_s(self) -> float:
        """Latency of the exchanges beside which nothing at all runs."""
        exchanges, waits = self.exchanges(), [bar for bar in self.bars if bar.kind == EXPOSED]
        whole = [bar for bar in waits if bar.name in exchanges and bar.seconds >= exchanges[bar.name].seconds]
        return sum(bar.weight * exchanges[bar.name].latency_s for bar in whole)


def in_words(seconds: float) -> str:
    """Three digits with the unit that suits."""
    for scale, unit in ((1.0, "s"), (1e3, "ms")):
        if scale * seconds >= 1:
            return f"{scale * seconds:.3g} {unit}"
    return f"{1e6 * seconds:.3g} µs"


def read_turn(path: Path) -> LoopIteration:
    """The turn of the loop over layers that a trace shows; the whole program where it has no loop.

    Raises:
        ShardbenchError: the file is no trace of a compiled program.
    """
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
        return _turn(content)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ShardbenchError(f"{path}: is no trace of a compiled program ({type(error).__name__})") from None


def _turn(content: Mapping[str, Any]) -> LoopIteration:
    events = content["traceEvents"]
    lanes = {each["tid"]: each["args"]["name"] for each in events if each["name"] == "thread_name"}
    slices = [each for each in events if each["ph"] == "X"]
    layers, whole_s = int(content["otherData"]["layers"]), float(content["otherData"]["total_s"])
    loops = [each for each in slices if each["cat"] == MORE_TURNS]
    begin, end, turns = 0.0, 1e6 * whole_s, 1
    if loops:
        # The compiler may run the first or last layer apart, so the nearest count is the loop over layers.
        loop = min(loops, key=lambda each: abs(_more(each) + 1 - layers))
        begin, end, turns = loop["ts"] - loop["dur"] / _more(loop), loop["ts"], _more(loop) + 1
    room = 1e-3 * turns  # every bar is rounded to nanoseconds, and so is that of all other turns
    near = [each for each in slices if each["ts"] > begin - room and each["ts"] + each["dur"] < end + room]
    inside = [each for each in near if begin + room < each["ts"] + each["dur"] / 2 < end - room]
    # What the stream does there is the turn's own; a copy or an exchange may reach into it from outside the loop.
    runs = min(each["args"]["turns"] for each in inside if each["args"]["turns"] and lanes[each["tid"]] == COMPUTE)
    mine = [each for each in near if each["args"]["turns"] % runs == 0]  # 0 is the further turns of an inner loop
    bars = [
        Bar(
            lane=lanes[each["tid"]],
            name=each["name"],
            kind=each["cat"],
            start_s=max(0.0, 1e-6 * (each["ts"] - begin)),
            seconds=1e-6 * each["dur"],
            weight=each["args"]["turns"] / runs,
            latency_s=1e-6 * each["args"].get("latency_us", 0.0),
            bytes=each["args"].get("bytes", 0.0),
        )
        for each in mine
    ]
    return LoopIteration(turns=turns, loops=runs // turns, seconds=1e-6 * (end - begin), whole_s=whole_s, bars=bars)


def _more(loop: Mapping[str, Any]) -> int:
    """How many further turns the bar of a loop stands for: ``117 more turns of while.32``."""
    return int(loop["name"].partition(" ")[0])
