"""Communication volume of a layer, in closed form: the plain collectives by kind and axes, in bytes.

The payload of a collective is one chip's whole buffer: what an all-gather returns, what a reduce-scatter, an all-reduce
or an all-to-all takes as input. Projections send :func:`engines.core.volume.activation_payloads`; this module adds the
sums of norms, attention's all-to-alls, and gathered weights and vectors.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engines.core.dtypes import BYTES_PER_ELEMENT, GROUP_SCALE_BYTES, LARGEST
from engines.core.layout import variant_of
from engines.core.volume import activation_payloads
from engines.transformer.comm.collectives import gathers_terms
from engines.transformer.params.fusion import input_parts, matmul_widths, output_parts
from engines.transformer.params.quantize import stream_dtype
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan
from engines.weights.random import norm_names


@dataclass(frozen=True, slots=True, order=True)
class Transfer:
    """One collective of a layer: its kind as in HLO, its mesh axes (sorted), its payload in bytes, what it is for."""

    kind: str
    axes: str
    payload_bytes: float
    what: str


def layer_transfers(plan: Plan, time: int) -> list[Transfer]:
    """Every collective of one layer for ``time`` tokens a sequence, with partitioner=manual.

    Of a plan whose collectives run as loops, those that its plain twin would run.
    """
    plan = replace(plan, collectives="plain") if variant_of(plan.collectives).looped else plan
    return [each for each in _all(plan, time) if each.axes]


def _all(plan: Plan, time: int) -> Iterator[Transfer]:
    axes = plan.axes
    element = BYTES_PER_ELEMENT[stream_dtype(plan)]
    read = BYTES_PER_ELEMENT["int8"] if plan.act_dtype == "int8" else element
    tokens = plan.batch_size // axes.size(axes.batch) * time
    yield from _norms(plan, tokens)
    rows, columns = axes.gathered
    for name, into in input_parts(plan).items():
        inward, outward = (sum(width for _, width in parts(plan)[name]) for parts in (input_parts, output_parts))
        separate = plan.separates_tensors
        for width in matmul_widths(plan, into) if separate else [inward]:
            yield from _gathered_weights(plan, width, name, (rows, columns))
        for _, width in output_parts(plan)[name] if separate else [("", outward)]:
            yield from _gathered_weights(plan, width, name, (columns, rows))
        yield from _gathered_vectors(plan, inward, name)
        if plan.act_dtype == "int8":
            yield _transfer("all-reduce", axes.scattered, 4 * tokens, f"{name}.in scale")
            yield _transfer("all-reduce", axes.embed, 4 * tokens, f"{name}.out scale")
        chunks = plan.chips // axes.size(axes.ffn)
        payloads = activation_payloads(
            axes.layout,
            lambda names: axes.size(tuple(names)),
            tokens=tokens,
            d_model=plan.model.d_model,
            inward=chunks * inward,
            outward=chunks * outward,
            whole_residual=axes.whole_residual,
        )
        for each in payloads:
            # Gathered values are in int8 for int8 matmuls, sums in the residual stream's dtype.
            size = each.size * (read if each.kind == "all-gather" else element)
            yield _transfer(each.kind, axes.nontrivial(each.axes), size, f"{name}.{each.side}")
    yield from _attention(plan, tokens, element)


def _norms(plan: Plan, tokens: int) -> Iterator[Transfer]:
    statistics = 2 if plan.model.norm == "layernorm" else 1
    sums, shards = 4 * statistics * tokens, plan.axes.size(plan.axes.residual)
    for _ in norm_names(plan.model):
        if gathers_terms(sums, shards):
            yield _transfer("all-gather", plan.axes.residual, sums * shards, "norm")
        else:
            yield _transfer("all-reduce", plan.axes.residual, sums, "norm")


def _attention(plan: Plan, tokens: int, element: float) -> Iterator[Transfer]:
    axes, padded = plan.axes, plan.padded
    both = 2 * padded.kv_width
    there = element * tokens * plan.local_chunks * (padded.q_width + both)
    yield _transfer("all-to-all", axes.attention, there, "attention")
    yield _transfer("all-to-all", axes.attention, element * tokens * plan.local_chunks * padded.q_width, "attention")
    if not padded.kv_splits_by_head:
        own = tokens // axes.size(axes.attention)
        yield _transfer("all-gather", axes.head, element * own * plan.chips * both, "attention")


def _gathered_weights(plan: Plan, width: int, name: str, axes: tuple[Axes, Axes]) -> Iterator[Transfer]:
    """All-gathers of one matrix, along its contracted dimension first; each payload is what a chip holds after it.

    Scales and zero points of groups are gathered as the weights are. XLA sends one int4 value per byte.
    """
    element = max(1.0, BYTES_PER_ELEMENT[plan.weight_dtype])
    parts = {"weights": element}
    if plan.weight_group_size is not None:
        parts |= {"scales": GROUP_SCALE_BYTES / plan.weight_group_size, "zeros": element / plan.weight_group_size}
    for part, size in parts.items():
        held = size * plan.model.d_model * width
        for each in axes:
            held *= plan.axes.size(each)
            yield _transfer("all-gather", each, held, f"{name} {part}")


def _gathered_vectors(plan: Plan, width: int, name: str) -> Iterator[Transfer]:
    """float32 scales and biases of the input columns."""
    axes, cut = plan.axes.vector
    chunks = plan.local_chunks * plan.axes.size(cut)
    has_bias = (plan.model.attn_bias and name != "ffn") or (plan.model.ffn_bias and name != "attn")
    for present in (plan.weight_dtype in LARGEST and plan.weight_group_size is None, has_bias):
        if present:
            yield _transfer("all-gather", axes, 4 * chunks * width, f"{name} vectors")


def _transfer(kind: str, axes: Axes, payload_bytes: float, what: str) -> Transfer:
    return Transfer(kind, "".join(sorted(axes)), payload_bytes, what)
