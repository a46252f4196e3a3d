"""A predicted step as a trace that Perfetto and chrome://tracing open: the compute lane, a lane a link, the copies.

The format is Chrome's trace events (JSON, complete events ``"ph": "X"``, times in microseconds).
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.compiled.cost.timeline import COMPUTE, COPY, Event, Timeline
from engines.core.point import Point


def trace_events(timeline: Timeline, title: str, layers: int) -> dict[str, Any]:
    """The trace as a mapping that JSON can hold. Of every loop the first turn is drawn bar by bar.

    ``layers`` is kept with the trace, to tell the loop over layers from others. Arguments of a bar: ``turns``, how
    often it runs in all; ``bytes`` of HBM traffic or of an exchange; ``latency_us`` of an exchange; the compiler's
    ``cycles``; ``flops`` and what the bar is ``bound`` by. Bars of a lane that would overlap, as two loops' may,
    stand in lanes of their own.
    """
    lanes = _lanes(timeline.events)
    events: list[dict[str, Any]] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": title}}]
    for number, (label, bars) in enumerate(lanes.items(), 1):
        events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": label}})
        events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_sort_index", "args": {"sort_index": number}})
        events += [_slice(bar, number) for bar in bars]
    other = {"total_s": timeline.account.total_s, "layers": layers}
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": other}


def _lanes(events: Sequence[Event]) -> dict[str, list[Event]]:
    """Bars by the label of their lane, each lane in order of time and without overlaps."""
    by_lane: dict[str, list[Event]] = {COMPUTE: [], COPY: []}
    for event in events:
        by_lane.setdefault(event.lane, []).append(event)
    lanes: dict[str, list[Event]] = {}
    for lane in (COMPUTE, COPY, *sorted(by_lane.keys() - {COMPUTE, COPY})):
        label, rows = lane if lane in (COMPUTE, COPY) else f"link {lane}", list[list[Event]]()
        for event in sorted(by_lane[lane], key=lambda each: each.start_s):
            free = next((row for row in rows if _bounds_ns(row[-1])[1] <= _bounds_ns(event)[0]), None)
            if free is None:
                rows.append(free := [])
            free.append(event)
        lanes |= {label if not number else f"{label} ({number + 1})": row for number, row in enumerate(rows)}
    return lanes


def _bounds_ns(event: Event) -> tuple[int, int]:
    """Begin and end in whole nanoseconds, in which Perfetto counts; both rounded, so that neighbours only touch."""
    return round(event.start_s * 1e9), round((event.start_s + event.seconds) * 1e9)


def _slice(event: Event, lane: int) -> dict[str, Any]:
    begin, end = _bounds_ns(event)
    arguments: dict[str, float | str] = {"turns": event.turns}
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


def write_trace(folder: str, name: str, timeline: Timeline, layers: int, hlo: str | None = None) -> Path:
    """Write ``NAME.trace.json.gz`` (and ``NAME.hlo.txt.gz`` where ``hlo`` is given) and return its path.

    The same timeline gives the same bytes.
    """
    target = Path(folder).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{name}.trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps(trace_events(timeline, name, layers)).encode(), mtime=0))
    if hlo is not None:
        (target / f"{name}.hlo.txt.gz").write_bytes(gzip.compress(hlo.encode(), mtime=0))
    return path


def trace_name(point: Point, phase: str) -> str:
    """A file name that tells the point: model, slice, phase, sizes, layout, and a hash that tells the rest apart."""
    mesh = "x".join(map(str, point.mesh))
    sizes = f"b{point.batch_size}-i{point.input_len}-o{point.output_len}"
    parts = [point.model.name, point.chip.name, mesh, phase, sizes, point.ffn_layout, point.collectives]
    return "_".join([*parts, point.partitioner, point.weight_dtype, point.fingerprint("")[:6]])
