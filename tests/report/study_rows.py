"""Rows that answer the recipes of studies."""

from pathlib import Path

from bench.report.studies.registry import STUDIES
from bench.report.studies.traces import Places
from engines.core.row import POINT_FIELDS, Row

BY_RECIPE = {study.recipe: study for study in STUDIES}
NOWHERE = Places(Path("none/traces"), Path("reports/studies"))
CHOICES = {"mesh_shape": [4, 4, 4], "ffn_layout": "ws_2d", "attn_sharding": "batch", "collectives": "latency"}


def a_row_of(point, seconds=None, **changes):
    """An engine's answer to a point: one second of memory, three of other computation, one exposed, in ten."""
    asked = {key: value for key, value in point.axes().items() if key in POINT_FIELDS}
    chosen = [key for key in CHOICES if asked[key] in (None, "auto")]
    steps = point.decode_steps or 1
    content = {
        **asked,
        **{key: CHOICES[key] for key in chosen},
        "chosen": chosen,
        "engine": "compiled",
        "source": "compiled",
        "status": "ok" if seconds else "oom",
        "error": None if seconds else "ran out of memory",
        "valid": bool(seconds),
        "point_id": point.fingerprint("compiled"),
        "created_at": "2026-01-02T03:04:05.006+00:00",
    }
    if seconds:
        whole = seconds * steps
        content |= {"latency_s": whole, "step_time_s": seconds if point.phase == "decode" else None, "mfu": 0.5}
        content |= {"compute_s": 0.8 * whole, "memory_s": 0.5 * whole, "communication_s": 0.6 * whole}
        content |= {"overlapped_s": 0.4 * whole, "overhead_s": 0.0, "details": {"exposed_s": 0.2 * whole}}
    return Row(**{**content, **changes})
