"""The prediction of a point whose operators have shardings of their own: a plan's, or stated ones."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from engines.analytic.alpa.exported import choice_of_shardings
from engines.analytic.alpa.passes import Evaluated
from engines.analytic.alpa.planner import evaluated, planned
from engines.analytic.constants import calibrated_name, constants_of, provenance
from engines.analytic.cost import Cost
from engines.analytic.uncertainty import interval, place_of
from engines.core.digest import digest
from engines.core.engine import Estimate, Facts
from engines.core.errors import OutOfMemory, ShardbenchError
from engines.core.point import Point
from engines.core.row import Status
from engines.core.runtime import BEST
from engines.core.shardings import Shardings

ALPA_VERSION = 3
"""Raised when a plan, or the time of one, comes out differently with the same constants."""
PLANNED_EXPERTS_VERSION = 1
"""Raised where only plans of models with experts come out differently: part of what answers those alone."""


def planned_program_id(point: Point) -> str:
    """The version of the planner and the constants that the chip takes."""
    experts = [] if point.model.num_experts is None else [PLANNED_EXPERTS_VERSION]
    return digest("alpa", ALPA_VERSION, constants_of(point), *experts)


def planned_estimate(point: Point) -> Estimate:
    """The estimate of a point with ``planner=alpa`` or ``shardings``; a refusal where there is no plan."""
    details: dict[str, Any] = {"calibration": provenance(calibrated_name(point.chip))}
    try:
        if point.shardings is None:
            plan = planned(point, stages=False)
            found, shardings = plan.passes, plan.shardings
            details |= {"plan": plan.to_dict(), "planning_s": plan.planning_s}
        else:
            shardings = Shardings.parse(point.shardings)
            found = evaluated(point, choice_of_shardings(shardings))
            details |= {"plan": {"shardings": shardings.to_dict(), "shardings_digest": shardings.digest}}
    except ShardbenchError as error:
        status: Status = "oom" if isinstance(error, OutOfMemory) else "unsupported"
        return Estimate(status=status, error=str(error), facts=Facts(program_id=planned_program_id(point)))
    return _estimate(point, found, shardings, details)


def _cost(runs: int, found: Evaluated) -> Cost:
    terms = found.terms
    return Cost(
        compute_s=np.full(1, runs * terms.compute_s),
        memory_s=np.full(1, runs * terms.memory_s),
        communication_s=np.full(1, runs * terms.waiting_s),
        overhead_s=np.full(1, runs * (found.fixed_s + found.beside_s)),
        overlapped_s=np.full(1, runs * (terms.overlapped_s + found.hidden_s)),
    )


def _estimate(point: Point, phases: Mapping[str, Evaluated], shardings: Shardings, details: dict[str, Any]) -> Estimate:
    runs = {"prefill": 1, "decode": point.decode_steps}
    costs = {phase: _cost(runs[phase], found) for phase, found in phases.items()}
    cost = Cost(**{each.name: sum(getattr(one, each.name) for one in costs.values()) for each in fields(Cost)})
    found = max(phases.values(), key=lambda each: each.peak_bytes)
    low, high = interval(cost, np.asarray([place_of(point)]))
    latency = {phase: float(one.latency_s[0]) for phase, one in costs.items()}
    facts = Facts(
        program_id=planned_program_id(point),
        resolved={
            "mesh_shape": list(point.mesh),
            "runtime": BEST if point.runtime is None else point.runtime.name,
            "ffn_layout": None,
            "attn_sharding": None,
            "collectives": "plain",
            "partitioner": "gspmd",
            "shardings": shardings.text,
        },
        compute_s=float(cost.compute_s[0]),
        memory_s=float(cost.memory_s[0]),
        communication_s=float(cost.communication_s[0]),
        overlapped_s=float(cost.overlapped_s[0]),
        overhead_s=float(cost.overhead_s[0]),
        peak_hbm_bytes=found.peak_bytes,
        weights_bytes=found.weights_bytes,
        kv_cache_bytes=found.cache_bytes,
        activations_bytes=found.peak_bytes - found.weights_bytes - found.cache_bytes,
        details=details,
    )
    if found.peak_bytes > found.usable_bytes * (1 + 1e-9):
        usable = f"{found.usable_bytes / 1e9:.1f} GB"
        message = f"needs {found.peak_bytes / 1e9:.1f} GB of a chip's usable {usable}; plan for this point"
        return Estimate(status="oom", error=message, facts=facts)
    steps = point.decode_steps if "decode" in phases else 0
    return Estimate(
        latency_s=float(cost.latency_s[0]),
        latency_low_s=float(low[0]),
        latency_high_s=float(high[0]),
        ttft_s=latency.get("prefill"),
        step_time_s=latency["decode"] / steps if steps else None,
        facts=facts,
    )
