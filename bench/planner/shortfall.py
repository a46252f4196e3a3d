"""Where no plan fits: what is missing, and what would fit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from bench.planner.search import Candidate, SearchResult, fitting, within_limits
from bench.planner.workload import Workload, counts_up_to, ways_of
from engines.analytic.constants import of
from engines.analytic.predict import predict
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.runtime import shipped
from engines.core.text import significant

NARROWER: Final = ("int8", "int4")
OFFLOADS: Final[tuple[Mapping[str, Any], ...]] = (
    {"offload_kv": "host"},
    {"offload": "host"},
    {"offload": "host", "offload_kv": "host"},
    {"offload": "nvme"},
    {"offload": "nvme", "offload_kv": "host"},
)
"""Places from which weights and caches may come, the fastest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """``message`` is for the reader; ``would_fit`` has the nearest value of each key that would fit."""

    message: str
    would_fit: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"message": self.message, "would_fit": dict(self.would_fit)}


def shortfall(found: SearchResult) -> Shortfall:
    """What is missing where :func:`~bench.planner.search.search` chose nothing.

    Raises:
        ValueError: a plan was chosen.
    """
    if found.chosen is not None or found.closest is None:
        raise ValueError("a plan was chosen")
    remedies = _remedies(found.workload)
    kept = {key: value for key, value in remedies.items() if not key.startswith("offload")}
    changes = [f"{key}={value}" for key, value in kept.items()]
    places = [f"{key}={remedies[key]}" for key in remedies if key not in kept]
    changes += [" with ".join(places)] if places else []
    remedy = f"would fit: {', or '.join(changes)}" if changes else "nothing nearby would fit"
    return Shortfall(message=f"no plan fits: {_missing(found, found.closest)}; {remedy}", would_fit=remedies)


def _missing(found: SearchResult, closest: Candidate) -> str:
    workload = found.workload
    if not found.memory_fits:
        usable = (workload.chip.hbm_bytes or 0.0) * of(workload.chip, shipped()).hbm_usable
        limit = min(usable, workload.hbm_limit_bytes or usable)
        over = closest.peak_hbm_bytes - limit
        return (
            f"the plan with the least memory ({closest.point.num_chips} chips, {closest.point.weight_dtype}, batch "
            f"{closest.point.batch_size}) needs {closest.peak_hbm_bytes / 1e9:.1f} GB of a chip's "
            f"{limit / 1e9:.1f} GB, {over / 1e9:.1f} GB too much"
        )
    if workload.latency_limit_s is not None and closest.latency_s > workload.latency_limit_s:
        excess = significant(closest.latency_s - workload.latency_limit_s)
        return f"the fastest plan takes {significant(closest.latency_s, 4)} s, {excess} s over latency_limit_s"
    step = closest.step_time_s or 0.0
    limit = workload.step_limit_s or 0.0
    return f"a decode step takes {significant(step, 4)} s at best, {significant(step - limit)} s over step_limit_s"


def _remedies(workload: Workload) -> dict[str, Any]:
    """For each key alone the nearest value with which a plan fits; keys that cannot help are omitted."""
    remedies: dict[str, Any] = {}
    more = [count for count in counts_up_to(workload.chip, 4096) if count > max(workload.num_chips)]
    if workload.chip.kind == "tpu":
        # Beyond a cube of 64 the counts are dense; doubling finds the size without trying them all.
        more = [count for count in more if count & (count - 1) == 0]
    for count in more:
        if _fits(replace(workload, num_chips=(count,))):
            remedies["num_chips"] = count
            break
    batch = min(workload.batch_sizes) // 2
    while batch >= 1:
        if _fits(replace(workload, batch_sizes=(batch,))):
            remedies["batch_size"] = batch
            break
        batch //= 2
    for dtype in NARROWER:
        if dtype not in workload.weight_dtypes and _fits(replace(workload, weight_dtypes=(dtype,))):
            remedies["weight_dtype"] = dtype
            break
    return remedies | _offloaded(workload)


def _offloaded(workload: Workload) -> dict[str, Any]:
    """The nearest place outside the chips from which weights, and with them the cache, may come, if that fits."""
    for places in OFFLOADS:
        if all(getattr(workload, key) == "none" for key in places) and _fits(replace(workload, **places)):
            return dict(places)
    return {}


def _fits(workload: Workload) -> bool:
    try:
        ways = ways_of(workload)
    except (InvalidRequest, Unsupported):
        return (
            False  # no such slice, it cannot share this model, or the chip's file does not state the link or the drive
        )
    prediction = predict(ways.grid)
    return bool(np.any(fitting(workload, prediction) & within_limits(workload, ways.grid, prediction)))
