"""A compiled program's trace, read from its file: one turn of the loop over layers, and where its time goes.

The file is Chrome's trace events as ``engines/compiled/perfetto.py`` writes and describes them, which Perfetto opens
too. No name in it is interpreted.
"""

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engines.compiled.perfetto import FORMAT, VERSION, BarKind, Lane
from engines.core.errors import ShardbenchError

FOLDER: Final = "traces"
"""In a results folder, where the trace files of its rows are looked for."""
PERMUTE: Final = "collective-permute"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a lane, whose ``label`` names it. ``weight`` is how often it runs in one turn of the loop over layers.

    That is 0 for the bar of an inner loop's further turns: they are counted with its first. ``opcode`` is the
    instruction's, such as ``all-gather``.
    """

    lane: Lane
    label: str
    name: str
    kind: BarKind
    opcode: str
    start_s: float
    seconds: float
    weight: float
    latency_s: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopIteration:
    """One turn of the loop over layers, which has ``turns`` of them and runs ``loops`` times (a decode's steps).

    ``seconds`` is the turn's time and ``whole_s`` the whole program's. Bars begin at 0.
    """

    turns: int
    loops: int
    seconds: float
    whole_s: float
    bars: Sequence[Bar]

    @property
    def lanes(self) -> list[str]:
        """Labels of the lanes that have a bar, in the order of the file."""
        return list(dict.fromkeys(bar.label for bar in self.bars))

    def stream_s(self) -> Counter[BarKind]:
        """Seconds of the compute lane by kind, which add up to the turn's."""
        found: Counter[BarKind] = Counter()
        for bar in self.bars:
            if bar.lane == Lane.COMPUTE and bar.weight:
                found[bar.kind] += bar.seconds * bar.weight  # type: ignore[assignment]
        return found

    def matmul_bytes_per_s(self) -> float | None:
        """HBM traffic during matmuls; None without any."""
        matmuls = [bar for bar in self.bars if bar.kind == BarKind.MATMUL]
        seconds = sum(bar.seconds * bar.weight for bar in matmuls)
        return sum(bar.bytes * bar.weight for bar in matmuls) / seconds if seconds else None

    def collectives(self) -> dict[str, Bar]:
        """Every collective once, by name: on the first link that it occupies."""
        return {bar.name: bar for bar in reversed(self.bars) if bar.lane == Lane.LINK}

    def exposed_by_s(self) -> Counter[str]:
        """Seconds of exposed communication by the collective's opcode."""
        collectives, found = self.collectives(), Counter[str]()
        for bar in self.bars:
            if bar.kind == BarKind.EXPOSED:
                opcode = collectives[bar.name].opcode if bar.name in collectives else "others"
                found[opcode] += bar.seconds * bar.weight  # type: ignore[assignment]
        return found

    def hidden_permutes(self) -> float | None:
        """Share of the permutes' time that overlaps computation; None without any."""
        sent_s = sum(bar.seconds * bar.weight for bar in self.collectives().values() if bar.opcode == PERMUTE)
        return max(0.0, 1 - self.exposed_by_s()[PERMUTE] / sent_s) if sent_s else None


def read_turn(path: Path) -> LoopIteration:
    """The turn of the loop over layers that a trace shows; the whole program where it has no loop.

    Raises:
        ShardbenchError: the file is not a trace of a compiled program, or of another version of its format.
    """
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
        about = content["otherData"]
        if (about.get("format"), about.get("version")) == (FORMAT, VERSION):
            return _turn(content["traceEvents"], about)
    except (OSError, EOFError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise ShardbenchError(f"{path}: is not a trace of a compiled program ({type(error).__name__})") from None
    version = about.get("version")
    raise ShardbenchError(
        f"{path}: has trace version {version}, not {VERSION}; run its point again with engine.trace_dir"
    )


def _turn(events: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> LoopIteration:
    lanes = {lane["tid"]: (Lane(lane["kind"]), str(lane["label"])) for lane in about["lanes"]}
    whole_s, loops = float(about["total_s"]), {loop["index"]: loop for loop in about["loops"]}
    program: dict[str, Any] = {"index": 0, "turns": 1, "runs": 1, "start_s": 0.0, "turn_s": whole_s}
    shown: Mapping[str, Any] = program if about["layer_loop"] is None else loops[about["layer_loop"]]
    inside = _with_inner(shown["index"], loops)
    runs = int(shown["turns"] * shown["runs"])
    bars = []
    for each in events:
        if each["ph"] == "X" and each["args"]["loop"] in inside:
            details = each["args"]
            lane, label = lanes[each["tid"]]
            bars.append(
                Bar(
                    lane=lane,
                    label=label,
                    name=each["name"],
                    kind=BarKind(details["kind"]),
                    opcode=each["cat"],
                    start_s=max(0.0, 1e-6 * each["ts"] - shown["start_s"]),
                    seconds=1e-6 * each["dur"],
                    weight=details["turns"] / runs,
                    latency_s=1e-6 * details.get("latency_us", 0.0),
                    bytes=details.get("bytes", 0.0),
                )
            )
    return LoopIteration(
        turns=int(shown["turns"]), loops=int(shown["runs"]), seconds=shown["turn_s"], whole_s=whole_s, bars=bars
    )


def _with_inner(index: int, loops: Mapping[int, Mapping[str, Any]]) -> set[int]:
    """The loop and all loops within it."""
    inner = {each for each, loop in loops.items() if loop["parent"] == index}
    return {index}.union(*(_with_inner(each, loops) for each in inner))
