"""What a layer sends, as closed forms: the collectives of plain partitioning, by kind and axes, in bytes.

The payload of a collective is one chip's whole buffer: what an all-gather returns, what a reduce-scatter, an
all-reduce or an all-to-all is given. Over n chips a link then carries payload·(n − 1)/n (Pope et al. 2022, appendix
A.1). With t = tokens of a forward pass and sizes in elements, one plain feed-forward sends

- ``ws_1d``: t·E in, t·E out;
- ``ws_2d``: t·E/X and t·F/(YZ) in, t·F/(YZ) and t·E/X out;
- ``wg_*`` over N chips: its two matrices, each E·F·N/n, and t·E/N in and out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engines.core.dtypes import BYTES_PER_ELEMENT, LARGEST
from engines.transformer.comm.collectives import gathers_terms
from engines.transformer.params.fusion import input_parts, input_widths, output_parts
from engines.transformer.params.quantize import stream_dtype
from engines.transformer.partition.plan import Axes, Plan


@dataclass(frozen=True, slots=True, order=True)
class Transfer:
    """One collective of a layer: its kind as in HLO, its mesh axes (sorted), its payload in bytes, what it is for."""

    kind: str
    axes: str
    payload_bytes: float
    what: str


def layer_transfers(plan: Plan, time: int) -> list[Transfer]:
    """Every collective of one layer's pass over ``time`` tokens a sequence, partitioned by hand, plain collectives."""
    return [each for each in _all(replace(plan, collectives="plain"), time) if each.axes]


def _all(plan: Plan, time: int) -> Iterator[Transfer]:
    element = BYTES_PER_ELEMENT[stream_dtype(plan)]
    read = BYTES_PER_ELEMENT[plan.act_dtype]
    tokens = plan.batch_size // plan.size(plan.batch_axes) * time
    statistics = 2 if plan.model.norm == "layernorm" else 1
    norms = 1 if plan.fused else 2
    sums, shards = 4 * statistics * tokens, plan.size(plan.residual_axes)
    for _ in range(norms):
        if gathers_terms(sums, shards):
            yield _transfer("all-gather", plan.residual_axes, sums * shards, "norm")
        else:
            yield _transfer("all-reduce", plan.residual_axes, sums, "norm")
    chunks, embed = plan.chips // plan.size(plan.ffn_axes), plan.model.d_model // plan.size(plan.embed_axes)
    for name in input_parts(plan):
        inward, outward = (sum(width for _, width in parts(plan)[name]) for parts in (input_parts, output_parts))
        rows, columns = plan.gathered_axes
        for width in input_widths(plan, name) if plan.apart else [inward]:
            yield from _gathered_weights(plan, width, name, (rows, columns))
        for _, width in output_parts(plan)[name] if plan.apart else [("", outward)]:
            yield from _gathered_weights(plan, width, name, (columns, rows))
        yield from _gathered_vectors(plan, inward, name)
        if plan.act_dtype == "int8":
            yield _transfer("all-reduce", plan.ffn_axes, 4 * tokens, f"{name}.in scale")
            yield _transfer("all-reduce", plan.embed_axes, 4 * tokens, f"{name}.out scale")
        yield _transfer("all-gather", plan.ffn_axes, read * tokens * embed, f"{name}.in")
        yield _transfer("reduce-scatter", plan.embed_axes, element * tokens * chunks * inward, f"{name}.in")
        yield _transfer("all-gather", plan.embed_axes, read * tokens * chunks * outward, f"{name}.out")
        yield _transfer("reduce-scatter", plan.ffn_axes, element * tokens * embed, f"{name}.out")
    both = 2 * plan.kv_width
    there = element * tokens * plan.local_chunks * (plan.q_width + both)
    yield _transfer("all-to-all", plan.attention_axes, there, "attention")
    yield _transfer("all-to-all", plan.attention_axes, element * tokens * plan.local_chunks * plan.q_width, "attention")
    if not plan.kv_splits_by_head:
        own = tokens // plan.size(plan.attention_axes)
        yield _transfer("all-gather", plan.head_axes, element * own * plan.chips * both, "attention")


def _gathered_weights(plan: Plan, width: int, name: str, axes: tuple[Axes, Axes]) -> Iterator[Transfer]:
    """One matrix, along its contracted dimension first: as much as a chip then holds, after each gather.

    XLA sends int4 one to a byte.
    """
    held = max(1.0, BYTES_PER_ELEMENT[plan.weight_dtype]) * plan.model.d_model * width
    for each in axes:
        held *= plan.size(each)
        yield _transfer("all-gather", each, held, f"{name} weights")


def _gathered_vectors(plan: Plan, width: int, name: str) -> Iterator[Transfer]:
    """float32 scales and biases of the input columns."""
    axes = tuple(axis for axis in plan.all_axes if axis not in plan.column_axes)
    has_bias = (plan.model.attn_bias and name != "ffn") or (plan.model.ffn_bias and name != "attn")
    for present in (plan.weight_dtype in LARGEST, has_bias):
        if present:
            yield _transfer("all-gather", axes, 4 * plan.local_chunks * width, f"{name} vectors")


def _transfer(kind: str, axes: Axes, payload_bytes: float, what: str) -> Transfer:
    return Transfer(kind, "".join(sorted(axes)), payload_bytes, what)
