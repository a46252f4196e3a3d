"""The prompts of a point, and the prefill program for them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from engines.core.errors import InvalidRequest, Unsupported
from engines.core.point import Point
from engines.jax.settings import Settings
from engines.transformer.layers.packing import pack
from engines.transformer.layers.ragged import CPU_PAGE, PAGE, Ragged, pages_of
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import make_prefill, make_ragged_prefill
from engines.weights.lengths import lengths_of
from engines.weights.random import prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """``tokens``: [batch, time]; ``ends``: [batch], the position of each prompt's last token.

    ``prefill`` is jitted and takes ``arguments`` after parameters and cache. ``position`` is where decode begins. ``skipped_tokens`` of the batch's tokens
    do not go through the model, or are padding.
    """

    tokens: NDArray[np.int32]
    ends: NDArray[np.int32]
    prefill: Any
    arguments: tuple[Any, ...]
    position: Any
    skipped_tokens: int
    details: Mapping[str, Any]


def check_prompts(point: Point, settings: Settings) -> None:
    """Check what prompts of different lengths do not go with.

    Raises:
        InvalidRequest: chunks or a shared prefix.
        Unsupported: positions of a sequence over chips, or packing where the compiler partitions.
    """
    if point.lengths == "equal":
        return
    for key, value in (("prefill_chunk", settings.prefill_chunk), ("shared_prefix", settings.shared_prefix)):
        if value:
            problem = f"cannot be combined with lengths={point.lengths}"
            raise InvalidRequest(f"engine.{key}", value, problem, "set only one of them")
    packed = point.padding == "packed"
    if point.attn_sharding == "sequence" and (packed or point.phase != "prefill"):
        key = "padding=packed" if packed else f"lengths={point.lengths}"
        raise Unsupported(
            f"{key}: attn_sharding=sequence splits positions, which are the same in all sequences; "
            "use attn_sharding=heads or batch"
        )
    if packed and point.partitioner == "gspmd":
        raise Unsupported(
            "padding=packed: each chip needs its own row, which needs partitioner=manual; use partitioner=manual"
        )


def paged(point: Point, plan: Plan, seed: int) -> Plan:
    """The plan, with the pages of its cache where sequences are decoded without padding."""
    if not plan.ragged or point.padding == "padded":
        return plan
    size = CPU_PAGE if point.chip.kind == "cpu" else PAGE
    pages = pages_of(plan, lengths_of(point, seed), point.decode_steps, size)
    return replace(plan, pages=(pages.owner.size, size))


def prompts_of(point: Point, plan: Plan, mesh: Mesh, settings: Settings) -> Prompts:
    """The point's prompts: of equal length, or of lengths drawn by seed, padded or packed."""
    batch, time = point.batch_size, max(point.input_len, 1)
    tokens = prompt(point.model, batch, time, settings.seed, plan.prefill.prefix)
    if point.lengths == "equal":
        return Prompts(
            tokens=tokens,
            ends=np.full(batch, point.input_len - 1, np.int32),
            prefill=make_prefill(plan, mesh, settings.sampling),
            arguments=(tokens,),
            position=np.asarray(point.input_len, np.int32),
            skipped_tokens=plan.prefill.skipped_tokens(batch),
            details={},
        )
    lengths = lengths_of(point, settings.seed)
    pages = () if plan.pages is None else pages_of(plan, lengths, point.decode_steps, plan.pages[1])
    rows, packing = pack(plan, tokens, lengths, pages) if point.padding == "packed" else (tokens, ())
    real = int(lengths.sum())
    return Prompts(
        tokens=tokens,
        ends=lengths - 1,
        prefill=make_ragged_prefill(plan, mesh, time, settings.sampling),
        arguments=(rows, lengths - 1 + (packing.starts if packing else 0), packing),
        position=Ragged(lengths, pages),
        skipped_tokens=batch * time - real,
        details={
            "real_tokens": real,
            "padded_tokens": batch * time,
            "rows_tokens": rows.size,
            "padding_removed": 1 - rows.size / (batch * time),
            "shortest_prompt": int(lengths.min()),
            "longest_prompt": int(lengths.max()),
            **({} if plan.pages is None else {"page": plan.pages[1], "cached_positions": math.prod(plan.pages)}),
        },
    )
