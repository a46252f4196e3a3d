"""Prompts of different lengths as the programs read them: padded, or packed in rows with a cache in pages."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.transformer.layers.packing import Packed, pack
from engines.transformer.layers.ragged import CPU_PAGE, PAGE, Pages, Ragged, pages_of
from engines.transformer.partition.plan import Plan
from engines.weights.lengths import lengths_of
from engines.weights.random import prompt

Ids = NDArray[np.int32]


class RaggedPrompts(NamedTuple):
    """``tokens``: [batch, input_len], of which ``lengths`` [batch] count.

    ``rows`` are the tokens as prefill reads them, ``last`` [batch] the place of each prompt's last token in its row,
    ``packing`` where prompts begin in rows, () where they are padded, and ``position`` where steps begin.
    """

    tokens: Ids
    lengths: Ids
    rows: Ids
    last: Ids
    packing: Packed | tuple[()]
    position: Ragged


def check_lengths(point: Point) -> None:
    """Check that prompts of the point's lengths can be read so.

    Raises:
        Unsupported: positions of a sequence are split over chips, or the compiler partitions packed rows.
    """
    if point.lengths == "equal":
        return
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


def ragged_prompts(point: Point, plan: Plan, seed: int) -> RaggedPrompts:
    """The point's prompts for a plan that is :func:`paged`."""
    tokens = prompt(point.model, point.batch_size, point.input_len, seed)
    lengths = lengths_of(point, seed)
    pages: Pages | tuple[()] = ()
    if plan.pages is not None:
        pages = pages_of(plan, lengths, point.decode_steps, plan.pages[1])
    position = Ragged(lengths, pages)
    if point.padding == "padded":
        return RaggedPrompts(tokens, lengths, tokens, lengths - 1, (), position)
    rows, packing = pack(plan, tokens, lengths, pages)
    return RaggedPrompts(tokens, lengths, rows, lengths - 1 + packing.starts, packing, position)


def shapes(arguments: Any, sharding: Any) -> Any:
    """Arrays → their shapes, to lower a program for devices that may not be present."""
    import jax

    def shape(value: Any) -> Any:
        array = np.asarray(value)
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)

    return jax.tree.map(shape, arguments)
