"""The prompts of a point, and the prefill program for them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.jax.settings import Settings
from engines.transformer.generate.pipeline import make_pipelined_decode, make_pipelined_prefill
from engines.transformer.generate.ragged_prompts import check_lengths, ragged_prompts
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import make_decode, make_prefill, make_ragged_prefill
from engines.weights.random import prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """``tokens``: [batch, time]; ``ends``: [batch], the position of each prompt's last token.

    ``prefill`` is jitted and takes ``arguments`` after parameters and cache. ``position`` is where decode begins.
    Prompts of different lengths are read in ``rows`` [rows, width], packed by ``packing`` unless it is ().
    ``skipped_tokens`` of the batch's tokens do not go through the model, or are padding.
    """

    tokens: NDArray[np.int32]
    ends: NDArray[np.int32]
    prefill: Any
    arguments: tuple[Any, ...]
    position: Any
    skipped_tokens: int
    details: Mapping[str, Any]
    rows: NDArray[np.int32] | None = None
    packing: Any = ()


def check_prompts(point: Point, settings: Settings) -> None:
    """Check what prompts of different lengths do not go with.

    Raises:
        InvalidRequest: chunks or a shared prefix.
        Unsupported: see :func:`engines.transformer.generate.ragged_prompts.check_lengths`.
    """
    if point.lengths == "equal":
        return
    for key, value in (("prefill_chunk", settings.prefill_chunk), ("shared_prefix", settings.shared_prefix)):
        if value:
            problem = f"cannot be combined with lengths={point.lengths}"
            raise InvalidRequest(f"engine.{key}", value, problem, "set only one of them")
    check_lengths(point)


def prompts_of(point: Point, plan: Plan, mesh: Mesh, settings: Settings) -> Prompts:
    """The point's prompts: of equal length, or of lengths drawn by seed, padded or packed."""
    batch, time = point.batch_size, max(point.input_len, 1)
    if point.lengths == "equal":
        tokens = prompt(point.model, batch, time, settings.seed, plan.prefill.prefix)
        return Prompts(
            tokens=tokens,
            ends=np.full(batch, point.input_len - 1, np.int32),
            prefill=(
                make_prefill(plan, mesh, settings.sampling) if plan.stages == 1 else make_pipelined_prefill(plan, mesh)
            ),
            arguments=(tokens,),
            position=np.asarray(point.input_len, np.int32),
            skipped_tokens=plan.prefill.skipped_tokens(batch),
            details={},
        )
    read = ragged_prompts(point, plan, settings.seed)
    real = int(read.lengths.sum())
    return Prompts(
        tokens=read.tokens,
        ends=read.lengths - 1,
        prefill=make_ragged_prefill(plan, mesh, time, settings.sampling, read.packing),
        arguments=(read.rows, read.last),
        position=read.position,
        rows=read.rows,
        packing=read.packing,
        skipped_tokens=batch * time - real,
        details={
            "real_tokens": real,
            "padded_tokens": batch * time,
            "rows_tokens": read.rows.size,
            "padding_removed": 1 - read.rows.size / (batch * time),
            "shortest_prompt": int(read.lengths.min()),
            "longest_prompt": int(read.lengths.max()),
            **({} if plan.pages is None else {"page": plan.pages[1], "cached_positions": math.prod(plan.pages)}),
        },
    )


def decode_of(point: Point, plan: Plan, mesh: Mesh, settings: Settings) -> Any:
    """The jitted decode of the point."""
    if plan.stages > 1:
        return make_pipelined_decode(plan, mesh, point.decode_steps)
    return make_decode(plan, mesh, point.decode_steps, settings.sampling)
