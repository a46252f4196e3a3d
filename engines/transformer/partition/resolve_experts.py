"""Which mesh axes split experts, and how tokens reach them, where a point leaves that open."""

from typing import Any, Final

from engines.core.errors import InvalidRequest
from engines.core.experts import Experts
from engines.core.layout import EXPERT_AXES, axes_size, layout_of
from engines.core.point import Point
from engines.core.slice import MeshShape
from engines.transformer.partition.plan import Plan

ROW_TILE: Final = 128
"""Rows of a tile of XLA:TPU's kernel for ``ragged_dot``."""


def resolve_experts(point: Point, mesh_shape: MeshShape, ffn_layout: str) -> tuple[str, str]:
    """What ``auto`` becomes: (mesh axes, "" for none; gather or all_to_all).

    Of the axes that split the experts and leave whole columns of each, those with the most chips: what is left of an
    expert's columns then fills a matmul best. Tokens are sent where that moves fewer bytes than gathering all of them,
    k copies of a chip's own tokens against all tokens of its group, and where those are more than one tile of rows:
    fewer wait for the counts that go before, and for permutes within the chip (qwen3-30b-a3b's decode of 64 sequences
    on 16 v5e, compiled: 20.0 ms a step against 16.8). A slice on which the compiler rejects an exchange that is not of
    equal parts gathers them.

    Raises:
        InvalidRequest: no axes have ``expert_parallel`` GPUs.
    """
    experts = point.model.experts
    if experts is None:
        return "", "gather"
    axes = _axes(point, experts, mesh_shape)
    if point.expert_dispatch != "auto":
        return axes, point.expert_dispatch
    gathered = layout_of(ffn_layout).gathered
    sequences = point.batch_size // axes_size(gathered, mesh_shape)
    tokens = sequences * (point.input_len if point.phase == "prefill" else 1)
    spread = axes_size("".join(axis for axis in axes if axis not in gathered), mesh_shape)
    cheaper = 2 * experts.per_token <= axes_size(axes, mesh_shape)
    many = tokens > ROW_TILE
    limit = point.chip.xla.overlapped_all_to_all_chips if point.chip.xla else None
    possible = sequences % spread == 0 and (limit is None or point.num_chips <= limit)
    return axes, "all_to_all" if cheaper and many and possible else "gather"


def resolved_experts(plan: Plan) -> dict[str, Any]:
    """The keys of a point that a plan's experts answer; none of others, or on one chip, or told by shardings."""
    if plan.model.experts is None or plan.chips == 1 or plan.shardings is not None:
        return {}
    return {
        "expert_axes": "".join(sorted(plan.experts.experts)) or "none",
        "expert_dispatch": plan.expert_dispatch if plan.experts.experts else None,
    }


def _axes(point: Point, experts: Experts, mesh_shape: MeshShape) -> str:
    if point.expert_axes != "auto":
        return "" if point.expert_axes == "none" else point.expert_axes
    chips = axes_size("xyz", mesh_shape)
    found = {names: axes_size(names, mesh_shape) for names in ("", *EXPERT_AXES[2:])}
    if point.expert_parallel is not None:
        fitting = [names for names, size in found.items() if size == point.expert_parallel]
        if not fitting:
            raise InvalidRequest(
                "expert_parallel",
                point.expert_parallel,
                f"is not the size of any axes of mesh_shape={list(mesh_shape)}",
                f"use one of {', '.join(map(str, sorted(set(found.values()))))}",
            )
        return fitting[0]
    whole = [
        names
        for names, size in found.items()
        if experts.count % size == 0 and experts.expert.d_ff % (chips // size) == 0
    ]
    return max(whole, key=lambda names: found[names], default="")
