"""A workload to plan, and the grid of all plans for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from engines.analytic.grid import Floats, Grid, Ints, grid_of
from engines.core.chip import Chip
from engines.core.errors import InvalidRequest
from engines.core.model import Model
from engines.core.point import Point
from engines.core.point_keys import FirstToken, Offload, OffloadKv, Phase
from engines.core.runtime import Runtime
from engines.core.slice import chip_counts, mesh_shapes, slice_of

MOST_RANKS: Final = 64
"""Tensor-parallel degrees considered on GPUs: over more nodes all-reduces dominate."""

MULTIPLES: Final = (1, 2, 4)
"""Micro-batches of a pipeline that are tried, as multiples of its stages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A request to the planner. Lists are the options; a limit, and ``micro_batches`` left open, are None.

    ``latency_limit_s`` bounds the phase, ``step_limit_s`` a decode step, ``hbm_limit_bytes`` the memory of one chip
    (the chip's own limit holds in any case).
    """

    model: Model
    chip: Chip
    phase: Phase
    objective: str
    batch_sizes: tuple[int, ...]
    input_len: int
    output_len: int
    weight_dtypes: tuple[str, ...]
    num_chips: tuple[int, ...]
    runtime: Runtime | None = None
    first_token: FirstToken = "auto"
    collectives: str = "auto"
    micro_batches: tuple[int, ...] | None = None
    offload: Offload = "none"
    offload_kv: OffloadKv = "none"
    latency_limit_s: float | None = None
    step_limit_s: float | None = None
    hbm_limit_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Ways:
    """All plans of a workload: the points, a grid over points × batch sizes, and the point of each entry.

    The points hold one batch size; ``batch`` of the grid is what counts, of which ``sequences`` are asked for.
    """

    points: Sequence[Point]
    grid: Grid
    index: Ints
    sequences: Floats

    def tokens(self, workload: Workload) -> Floats:
        """Tokens processed: B·(input_len | output_len | both), as rows count them; those of padding are none."""
        lengths = {
            "prefill": workload.input_len,
            "decode": workload.output_len,
            "generate": workload.input_len + workload.output_len,
        }
        return self.sequences * lengths[workload.phase]

    def point(self, position: int) -> Point:
        """The point of one entry of the grid, with its batch size."""
        return replace(self.points[int(self.index[position])], batch_size=int(self.grid.batch[position]))


def ways_of(workload: Workload) -> Ways:
    """Chips × mesh (or tensor × pipeline degrees, micro-batches) × weight dtype × batch size; layouts are left open.

    Raises:
        InvalidRequest: no such chip count exists, or no batch has so many micro-batches.
        InvalidRequest: the runtime does not run this model on this chip.
        Unsupported: the chip has no datasheet.
    """
    points = [
        Point(
            model=workload.model,
            chip=workload.chip,
            engine="analytic",
            runtime=workload.runtime,
            phase=workload.phase,
            num_chips=count,
            batch_size=workload.batch_sizes[0],
            input_len=workload.input_len,
            output_len=workload.output_len,
            weight_dtype=weight_dtype,
            first_token=workload.first_token,
            collectives=workload.collectives,
            offload=workload.offload,
            offload_kv=workload.offload_kv,
            **cut,
        )
        for count in workload.num_chips
        for cut in _cuts(workload, count)
        for weight_dtype in workload.weight_dtypes
    ]
    if not points:
        raise InvalidRequest(
            "num_chips", list(workload.num_chips), f"cannot shard {workload.model.name}", "give other numbers of chips"
        )
    points[0].check()
    base = grid_of(points)
    index = np.repeat(np.arange(len(points)), len(workload.batch_sizes))
    batch = np.tile(np.asarray(workload.batch_sizes, dtype=float), len(points))
    # Every micro-batch has a sequence; the first cuts of all leave micro-batches open, so that something is left.
    some = np.broadcast_to(base.micro_batches, (len(points),))[index] <= batch
    if not some.any():
        raise InvalidRequest(
            "micro_batches", workload.micro_batches, "are more than any batch has sequences", "give fewer, or auto"
        )
    index, batch = index[some], batch[some]
    return Ways(points, replace(base.take(index), batch=batch), index, batch)


def _cuts(workload: Workload, count: int) -> list[dict[str, Any]]:
    """The keys of a point with which ``count`` chips shard the model: mesh shapes, or tensor and pipeline degrees.

    Attention over positions is tried where neither heads nor every batch split the cache over all chips, and a dense
    model's data-parallel attention over groups of as many ranks as there are key/value heads, which more ranks would
    copy. Layouts, expert axes, and the groups of a model with experts or latent vectors are the closed forms' choice.
    """
    model = workload.model
    kv_heads = 1 if model.attention.is_latent else model.num_kv_heads
    if workload.chip.kind != "gpu":
        shapes = mesh_shapes(workload.chip, count)
        if not shapes:
            slice_of(workload.chip, count)  # says which counts there are
        cuts: list[dict[str, Any]] = [{"mesh_shape": shape} for shape in shapes]
        if count > kv_heads and min(workload.batch_sizes) < count:
            cuts += [{"mesh_shape": shape, "attn_sharding": "sequence"} for shape in shapes]
        return cuts
    node = workload.chip.node_size
    ranks = [
        degree
        for degree in range(1, min(count, MOST_RANKS) + 1)
        if count % degree == 0
        and workload.model.num_heads % degree == 0
        and (degree <= node or degree % node == 0)
        and count // degree <= workload.model.num_layers
    ]
    cuts = [{"tensor_parallel": degree, "pipeline_parallel": count // degree} for degree in ranks]
    if workload.offload != "none" or workload.offload_kv != "none":
        # Offloaded layers are modelled with all of them in one stage.
        cuts = [cut for cut in cuts if cut["pipeline_parallel"] == 1]
    cuts = [{**cut, **parts} for cut in cuts for parts in _parts(workload, cut["pipeline_parallel"])]
    if model.attention.is_latent or model.num_experts is not None:
        return cuts
    groups = [(cut, cut["tensor_parallel"] // kv_heads) for cut in cuts]
    return cuts + [{**cut, "data_parallel": group} for cut, group in groups if group > 1 and group & (group - 1) == 0]


def _parts(workload: Workload, stages: int) -> list[dict[str, Any]]:
    """Micro-batches of a pipeline: those asked for; else FasterTransformer's rule, one, and multiples of the stages.

    One part passes the stages in the fewest turns; more of them keep the stages busy, and read their weights as often.
    """
    if stages == 1:
        return [{}]
    asked = (
        (1, *(stages * factor for factor in MULTIPLES)) if workload.micro_batches is None else workload.micro_batches
    )
    found: list[dict[str, Any]] = [{"micro_batches": each} for each in asked]
    return [{}, *found] if workload.micro_batches is None else found


def counts_up_to(chip: Chip, most: int) -> tuple[int, ...]:
    """Numbers of chips for which a slice exists, up to ``most``; on GPUs the powers of two.

    Where a GPU's file does not state a network, those of one node.
    """
    if chip.kind == "gpu" and chip.network_bytes_per_s is None:
        most = min(most, chip.node_size)
    counts = chip_counts(replace(chip, max_chips=min(most, chip.max_chips)))
    if chip.kind == "gpu":
        counts = [count for count in counts if count & (count - 1) == 0]
    return tuple(counts)
