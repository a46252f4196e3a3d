"""Alpa's plan of a workload beside the closed forms' choice: what each is and takes, and how long planning took."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.planner.search import Candidate, SearchResult, search
from bench.planner.workload import Workload
from engines.analytic.alpa.planner import Planned, planned
from engines.analytic.engine import AnalyticEngine
from engines.core.errors import InvalidRequest
from engines.core.layout import AttnSharding
from engines.core.point import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A plan of ``point`` and the closed forms' choice for it.

    Seconds are of one pass, a prompt or a decode step; of phase=generate they are of the prompt and all decode steps.

    ``manual_s`` is the choice as our own program runs it, ``gspmd_s`` as a compiler partitions it, both by the closed
    forms; ``named_s`` is the same by the planner's costs, those of what a compiler sends. The last two are None where
    the choice has another layout in each phase.
    """

    point: Point
    plan: Planned
    chosen: Candidate
    choice: str
    manual_s: float
    gspmd_s: float | None
    named_s: float | None
    closed_form_s: float
    """Seconds that the closed forms took to search."""

    @property
    def gain(self) -> float | None:
        """Share of the best named layout's pass that the plan saves, by the planner's costs."""
        best = self.plan.best_named
        return None if best is None else 1 - self.plan.seconds / self.plan.named_s[best]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **_place(self.point),
            "planner": "alpa",
            **self.plan.to_dict(),
            "shardings_text": self.plan.shardings.text,
            "peak_hbm_bytes": self.plan.peak_bytes,
            "gain": self.gain,
            "planning_s": self.plan.planning_s,
            "closed_form": {
                "layout": self.choice,
                "pass_s": self.manual_s,
                "gspmd_pass_s": self.gspmd_s,
                "planner_pass_s": self.named_s,
                "planning_s": self.closed_form_s,
            },
        }


def _place(point: Point) -> dict[str, Any]:
    return {
        "model": point.model.name,
        "hw": point.chip.name,
        "num_chips": point.num_chips,
        "mesh_shape": list(point.mesh),
        "phase": point.phase,
        "batch_size": point.batch_size,
        "input_len": point.input_len,
        "output_len": point.output_len,
        "weight_dtype": point.weight_dtype,
    }


def compare(workload: Workload) -> Comparison | SearchResult:
    """Plan what the closed forms choose of a workload: its chips, mesh, batch and weights, with shardings of its own.

    Where nothing fits, the search's result.

    Raises:
        InvalidRequest, Unsupported, OutOfMemory: see :func:`engines.analytic.alpa.planner.planned`.
    """
    begun = time.perf_counter()
    found = search(workload, runners=0)
    closed_form_s = time.perf_counter() - begun
    if found.chosen is None:
        return found
    chosen = found.chosen
    point = replace(
        chosen.point,
        mesh_shape=chosen.point.mesh,
        attn_sharding="auto",
        planner="alpa",
        tensor_parallel=None,
        pipeline_parallel=None,
        data_parallel=None,
        expert_parallel=None,
    )
    plan = planned(point)
    steps = (point.decode_steps or 1) if workload.phase == "decode" else 1
    layouts = dict.fromkeys(chosen.layouts[phase] for phase in plan.passes)
    alike = next(iter(layouts)) if len(layouts) == 1 else None
    return Comparison(
        point=point,
        plan=plan,
        chosen=chosen,
        choice=", then ".join("/".join(each) for each in layouts),
        manual_s=chosen.latency_s / steps,
        gspmd_s=None if alike is None or point.num_chips == 1 else _by_compiler_s(point, *alike) / steps,
        named_s=None if alike is None else plan.named_s.get(alike),
        closed_form_s=closed_form_s,
    )


def _by_compiler_s(point: Point, layout: str, attention: str) -> float:
    """Seconds of a named layout as a compiler partitions it, by the closed forms."""
    stated = replace(
        point,
        planner="auto",
        partitioner="gspmd",
        ffn_layout=layout,
        attn_sharding=_over(attention),
        collectives="plain",
    )
    found = AnalyticEngine().estimate([stated])[0].latency_s
    assert found is not None
    return found


def _over(attention: str) -> AttnSharding:
    """A strategy's attention as a key of a point."""
    return "batch" if attention == "batch" else "heads"


def write_plan(found: Comparison, out: str) -> None:
    """Write a plan to a file that ``shardings=`` reads; the same plan gives the same bytes.

    Raises:
        InvalidRequest: the file cannot be written, or is not named .json.
    """
    if not out.endswith(".json"):
        raise InvalidRequest("out", out, "is a plan's file", "name it something.json")
    content = {**_place(found.point), **found.plan.to_dict()}
    try:
        Path(out).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidRequest("out", out, f"cannot be written: {error.strerror}", "use another file") from None


def sharding_rows(found: Comparison) -> Sequence[Mapping[str, str]]:
    """A line for each operator: what it reads, its matrix in memory, what it makes; axes of each dimension."""
    cuts = dict(found.plan.shardings.cuts)

    def shown(name: str) -> str:
        return "[" + ", ".join(axes or "-" for axes in cuts[name]) + "]"

    rows = []
    for name in ("residual", "middle", "attention", "table"):
        if name in cuts:
            rows.append({"value": name, "split": shown(name), "matrix in memory": ""})
    if "experts" in cuts:
        dims = "sent, experts, E, columns, tokens, tokens beside gathered weights"
        rows.append({"value": f"experts [{dims}]", "split": shown("experts"), "matrix in memory": ""})
    for name in cuts:
        if name.endswith((".in", ".out")):
            rows.append(
                {
                    "value": f"{name} [tokens, rows, columns]",
                    "split": shown(name),
                    "matrix in memory": shown(f"{name}.weights"),
                }
            )
        elif name.endswith((".columns", ".joined")):
            rows.append({"value": name, "split": shown(name), "matrix in memory": ""})
    return rows


def sentence(found: Comparison) -> str:
    """What the plan is, against the best named layout."""
    plan, best = found.plan, found.plan.best_named
    if plan.name is not None:
        return f"Alpa's plan is {'/'.join(plan.name)}: no other shardings of the operators take less."
    if best is None:
        return "Alpa's plan is no named layout; none of those fits in memory."
    assert found.gain is not None
    return f"Alpa's plan is no named layout: {found.gain:.2%} less than {'/'.join(best)}, the best by these costs."
