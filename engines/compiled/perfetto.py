"""A predicted step as a trace that Perfetto and chrome://tracing open: the compute lane, a lane a link, the copies.

The format is Chrome's trace events (JSON, complete events ``"ph": "X"``, times in microseconds). Names are for the
eye: what a program needs to read the trace back stands in ``otherData`` and in the arguments of every bar.

``otherData`` holds ``format`` and ``version``; ``total_s`` of the program; ``lanes``, the ``kind`` (:class:`Lane`) and
``label`` of every thread; ``loops``, as :class:`engines.compiled.cost.timeline.Loop` describes them; the number of
``layers`` and ``layer_loop``, the index of the loop over them (null without loops).
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from engines.compiled.cost.bars import Event, Loop
from engines.compiled.cost.timeline import COMPUTE, COPY, COPY_WAIT, EXPOSED, MATMUL, Timeline
from engines.compiled.timed import TimedProgram
from engines.core.errors import InvalidRequest
from engines.core.point import Point

FORMAT: Final = "shardbench-trace"
VERSION: Final = 2


class Lane(StrEnum):
    """What the bars of a lane occupy."""

    COMPUTE = "compute"
    COPY = "copy"
    LINK = "link"


class BarKind(StrEnum):
    """What a bar is. In the compute lane: a matmul, other computation, a wait, or the further turns of a loop."""

    MATMUL = "matmul"
    OTHER = "other"
    EXPOSED = "exposed"
    COPY_WAIT = "copy_wait"
    FURTHER_TURNS = "further_turns"
    COPY = "copy"
    COLLECTIVE = "collective"


def trace_events(
    timeline: Timeline, title: str, layers: int | None, sources: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The trace as a mapping that JSON can hold. Of every loop the first turn is drawn bar by bar.

    ``layers`` tells the loop over layers from others; None where a program has none. ``sources`` holds the place in the
    source (``file:line``) of an instruction, by its name: its bars then have it as ``source``, and the name as ``hlo``.

    Arguments of a bar: its ``kind`` (:class:`BarKind`); the index of the ``loop`` that it stands in, 0 outside of all;
    ``turns``, how often it runs in all; ``bytes`` of HBM traffic or of a collective; ``latency_us`` of a collective;
    the compiler's ``cycles``; ``flops`` and what the bar is ``bound`` by. Its category is the opcode. Bars of a lane
    that would overlap, as two loops' may, stand in lanes of their own.
    """
    events: list[dict[str, Any]] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": title}}]
    lanes: list[dict[str, Any]] = []
    for number, (kind, label, bars) in enumerate(_lanes(timeline.events), 1):
        lanes.append({"tid": number, "kind": kind, "label": label})
        events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": label}})
        events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_sort_index", "args": {"sort_index": number}})
        events += [_slice(bar, number, (sources or {}).get(bar.name)) for bar in bars]
    other = {
        "format": FORMAT,
        "version": VERSION,
        "total_s": timeline.account.total_s,
        "layers": layers,
        "layer_loop": _layer_loop(timeline.loops, layers),
        "loops": [asdict(loop) for loop in timeline.loops],
        "lanes": lanes,
    }
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": other}


def _layer_loop(loops: Sequence[Loop], layers: int | None) -> int | None:
    """The loop whose count is nearest: the compiler may run the first or the last layer outside of it."""
    return None if layers is None or not loops else min(loops, key=lambda loop: abs(loop.turns - layers)).index


def _lanes(events: Sequence[Event]) -> list[tuple[Lane, str, list[Event]]]:
    """Kind, label and bars of every lane, the bars in order of time and without overlaps."""
    by_lane: dict[str, list[Event]] = {COMPUTE: [], COPY: []}
    for event in events:
        by_lane.setdefault(event.lane, []).append(event)
    lanes: list[tuple[Lane, str, list[Event]]] = []
    for lane in (COMPUTE, COPY, *sorted(by_lane.keys() - {COMPUTE, COPY})):
        kind = _lane_kind(lane)
        label, rows = f"link {lane}" if kind is Lane.LINK else lane, list[list[Event]]()
        for event in sorted(by_lane[lane], key=lambda each: each.start_s):
            free = next((row for row in rows if _bounds_ns(row[-1])[1] <= _bounds_ns(event)[0]), None)
            if free is None:
                rows.append(free := [])
            free.append(event)
        lanes += [(kind, f"{label} ({number + 1})" if number else label, row) for number, row in enumerate(rows)]
    return lanes


def _lane_kind(lane: str) -> Lane:
    return {COMPUTE: Lane.COMPUTE, COPY: Lane.COPY}.get(lane, Lane.LINK)


def _bar_kind(event: Event) -> BarKind:
    lane = _lane_kind(event.lane)
    if lane is not Lane.COMPUTE:
        return BarKind.COPY if lane is Lane.COPY else BarKind.COLLECTIVE
    if event.repeats:
        return BarKind.FURTHER_TURNS
    known = {MATMUL: BarKind.MATMUL, EXPOSED: BarKind.EXPOSED, COPY_WAIT: BarKind.COPY_WAIT}
    return known.get(event.note, BarKind.OTHER)


def _bounds_ns(event: Event) -> tuple[int, int]:
    """Begin and end in whole nanoseconds, in which Perfetto counts; both rounded, so that neighbours only touch."""
    return round(event.start_s * 1e9), round((event.start_s + event.seconds) * 1e9)


def _slice(event: Event, lane: int, source: str | None) -> dict[str, Any]:
    begin, end = _bounds_ns(event)
    arguments: dict[str, float | str] = {"kind": _bar_kind(event), "loop": event.loop, "turns": event.turns}
    if source is not None:
        arguments["hlo"], arguments["source"] = event.name, source
    if event.bytes:
        arguments["bytes"] = event.bytes
    if event.cycles is not None:
        arguments["cycles"] = event.cycles
    if event.flops is not None:
        arguments["flops"] = event.flops
        if event.bytes:
            arguments["flops_per_byte"] = round(event.flops / event.bytes, 3)
    if event.bound is not None:
        arguments["bound"] = event.bound
    if event.latency_s:
        arguments["latency_us"] = round(event.latency_s * 1e6, 3)
    return {
        "ph": "X",
        "pid": 1,
        "tid": lane,
        "name": event.name,
        "cat": event.note,
        "ts": begin / 1e3,
        "dur": (end - begin) / 1e3,
        "args": arguments,
    }


def write_traces(
    folder: str | None, point: Point, phases: Sequence[TimedProgram], *, keep_hlo: bool
) -> dict[str, dict[str, str]]:
    """Write a trace of each phase, where there is a folder; the row's detail that names their files."""
    if folder is None:
        return {}
    names = dict[str, str]()
    for phase in phases:
        text = phase.compiled.text if keep_hlo else None
        path = write_trace(folder, trace_name(point, phase.name), phase.timeline, point.model.num_layers, text)
        names[phase.name] = path.name
    return {"traces": names}


def write_trace(folder: str, name: str, timeline: Timeline, layers: int, hlo: str | None = None) -> Path:
    """Write ``NAME.trace.json.gz`` (and ``NAME.hlo.txt.gz`` where ``hlo`` is given) and return its path.

    The same timeline gives the same bytes.
    """
    target = Path(folder).expanduser()
    path = write_trace_file(target / f"{name}.trace.json.gz", timeline, name, layers)
    if hlo is not None:
        (target / f"{name}.hlo.txt.gz").write_bytes(gzip.compress(hlo.encode(), mtime=0))
    return path


def write_trace_file(
    path: Path, timeline: Timeline, title: str, layers: int | None, sources: Mapping[str, str] | None = None
) -> Path:
    """Write :func:`trace_events` to a file, gzipped unless its name ends in ``.json``; returns its path.

    Raises:
        InvalidRequest: the file cannot be written.
    """
    content = json.dumps(trace_events(timeline, title, layers, sources)).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if path.suffix == ".json" else gzip.compress(content, mtime=0))
    except OSError as error:
        raise InvalidRequest("trace", path, f"cannot be written ({error.strerror})", "use a writable folder") from None
    return path


def trace_name(point: Point, phase: str) -> str:
    """A file name that tells the point: model, slice, phase, sizes, layout, and a hash that tells the rest apart."""
    mesh = "x".join(map(str, point.mesh))
    sizes = f"b{point.batch_size}-i{point.input_len}-o{point.output_len}"
    parts = [point.model.name, point.chip.name, mesh, phase, sizes, point.ffn_layout, point.collectives]
    return "_".join([*parts, point.partitioner, point.weight_dtype, point.fingerprint("")[:6]])
