"""A predicted step as a trace that Perfetto and chrome://tracing open: the compute lane, a lane a link, the copies.

The format is Chrome's trace events (JSON, complete events ``"ph": "X"``, times in microseconds).
"""

import gzip
import json
from pathlib import Path
from typing import Any

from engines.compiled.timeline import COMPUTE, COPY, Timeline
from engines.point import Point


def trace_events(timeline: Timeline, title: str) -> dict[str, Any]:
    """The trace as a mapping that JSON can hold. Of every loop the first turn is drawn bar by bar."""
    links = sorted({event.lane for event in timeline.events} - {COMPUTE, COPY})
    lanes = {lane: number for number, lane in enumerate([COMPUTE, COPY, *links], 1)}
    events: list[dict[str, Any]] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": title}}]
    for lane, number in lanes.items():
        label = lane if lane in (COMPUTE, COPY) else f"link {lane}"
        events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": label}})
        events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_sort_index", "args": {"sort_index": number}})
    for event in timeline.events:
        events.append(
            {
                "ph": "X",
                "pid": 1,
                "tid": lanes[event.lane],
                "name": event.name,
                "cat": event.note or event.lane,
                "ts": event.start_s * 1e6,
                "dur": event.seconds * 1e6,
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"total_s": timeline.account.total_s}}


def write_trace(folder: str, name: str, timeline: Timeline, hlo: str | None = None) -> Path:
    """Write ``NAME.trace.json.gz`` (and ``NAME.hlo.txt.gz`` where ``hlo`` is given) and return its path."""
    target = Path(folder).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{name}.trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps(trace_events(timeline, name)).encode()))
    if hlo is not None:
        (target / f"{name}.hlo.txt.gz").write_bytes(gzip.compress(hlo.encode()))
    return path


def trace_name(point: Point, phase: str) -> str:
    """A file name that tells the point: model, slice, phase, sizes, layout, and a hash that tells the rest apart."""
    mesh = "x".join(map(str, point.mesh))
    sizes = f"b{point.batch_size}-i{point.input_len}-o{point.output_len}"
    parts = [point.model.name, point.chip.name, mesh, phase, sizes, point.ffn_layout, point.collectives]
    return "_".join([*parts, point.partitioner, point.weight_dtype, point.fingerprint("")[:6]])
