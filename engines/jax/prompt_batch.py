"""The prompts of a point, and the prefill program for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from engines.core.errors import InvalidRequest, Unsupported
from engines.core.point import Point
from engines.jax.settings import Settings
from engines.transformer.generate.prompt_lengths import DISTRIBUTIONS, draw_lengths
from engines.transformer.layers.packing import pack
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import make_prefill, make_ragged_prefill
from engines.weights.random import prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """``tokens``: [batch, time]; ``ends``: [batch], the position of each prompt's last token.

    ``prefill`` is jitted and takes ``arguments`` after parameters and cache. ``skipped_tokens`` of the batch's tokens
    do not go through the model, or are padding.
    """

    tokens: NDArray[np.int32]
    ends: NDArray[np.int32]
    prefill: Any
    arguments: tuple[Any, ...]
    skipped_tokens: int
    details: Mapping[str, Any]


def check_prompts(point: Point, settings: Settings) -> None:
    """Check the settings of prompt lengths.

    Raises:
        InvalidRequest: a distribution is unknown, there is no padding to remove, or two settings exclude each other.
        Unsupported: ``lengths`` with a phase that decodes, or ``packed`` where the compiler partitions.
    """
    lengths = settings.lengths
    if lengths is None:
        if settings.packed:
            remedy = f"set engine.lengths to one of {', '.join(DISTRIBUTIONS)}"
            raise InvalidRequest("engine.packed", True, "needs prompts of different lengths", remedy)
        return
    if lengths not in DISTRIBUTIONS:
        raise InvalidRequest(
            "engine.lengths", lengths, "is not known", f"use null or one of {', '.join(DISTRIBUTIONS)}"
        )
    for key, value in (("prefill_chunk", settings.prefill_chunk), ("shared_prefix", settings.shared_prefix)):
        if value:
            problem = f"cannot be combined with engine.lengths={lengths}"
            raise InvalidRequest(f"engine.{key}", value, problem, "set only one of them")
    if point.phase != "prefill":
        raise Unsupported(f"engine.lengths={lengths}: decode needs prompts of equal length; use phase=prefill")
    if settings.packed and point.attn_sharding == "sequence":
        raise Unsupported(
            "engine.packed=true: a row of packed sequences has no positions that attn_sharding=sequence could split; "
            "use attn_sharding=heads or batch"
        )
    if settings.packed and point.partitioner == "gspmd":
        raise Unsupported(
            "engine.packed=true: each chip needs its own row, which needs partitioner=manual; use partitioner=manual"
        )


def prompts_of(point: Point, plan: Plan, mesh: Mesh, settings: Settings) -> Prompts:
    """The point's prompts: of equal length, or of lengths drawn by seed, padded or packed."""
    batch, time = point.batch_size, max(point.input_len, 1)
    tokens = prompt(point.model, batch, time, settings.seed, plan.prefill.prefix)
    if settings.lengths is None:
        return Prompts(
            tokens=tokens,
            ends=np.full(batch, point.input_len - 1, np.int32),
            prefill=make_prefill(plan, mesh, settings.sampling),
            arguments=(tokens,),
            skipped_tokens=plan.prefill.skipped_tokens(batch),
            details={},
        )
    lengths = draw_lengths(settings.lengths, batch, time, settings.seed)
    rows, packing = pack(plan, tokens, lengths) if settings.packed else (tokens, ())
    real = int(lengths.sum())
    return Prompts(
        tokens=tokens,
        ends=lengths - 1,
        prefill=make_ragged_prefill(plan, mesh, time, settings.sampling),
        arguments=(rows, lengths - 1 + (packing.starts if packing else 0), packing),
        skipped_tokens=batch * time - real,
        details={
            "real_tokens": real,
            "padded_tokens": batch * time,
            "rows_tokens": rows.size,
            "padding_removed": 1 - rows.size / (batch * time),
        },
    )
