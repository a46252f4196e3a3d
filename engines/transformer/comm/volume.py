"""Communication volume of a layer, in closed form: the plain collectives by kind and axes, in bytes.

The payload of a collective is one chip's whole buffer: what an all-gather returns, what a reduce-scatter, an all-reduce
or an all-to-all takes as input. Projections send :func:`engines.core.volume.activation_payloads`; this module adds the
sums of norms, attention's all-to-alls, and gathered weights and vectors.
"""

from collections.abc import Iterator
from dataclasses import replace

from engines.core.dtypes import BYTES_PER_ELEMENT, LARGEST
from engines.core.layer_kind import LayerKind
from engines.core.layout import variant_of
from engines.core.volume import activation_payloads
from engines.transformer.comm.attention_volume import attention_transfers
from engines.transformer.comm.collectives import gathers_terms
from engines.transformer.comm.expert_volume import expert_transfers
from engines.transformer.comm.transfer import Transfer, parts_of_a_weight, transfer
from engines.transformer.params.fusion import input_parts, matmul_widths, output_parts, shared_parts
from engines.transformer.params.quantize import stream_dtype
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan
from engines.weights.random import norm_names


def layer_transfers(
    plan: Plan, time: int, limit: int | None = None, *, kind: LayerKind | None = None, ragged: bool = False
) -> list[Transfer]:
    """Every collective of one layer for ``time`` tokens a sequence, with partitioner=manual.

    They attend to ``limit`` positions, by default the whole cache in a decode step and themselves in a prompt. The
    layer is of that ``kind``, by default the last one's; ``ragged``: the devices have a ragged all-to-all, as TPUs do.
    Of a plan whose collectives run as loops, those that its plain twin would run; a ring of keys is as many permutes.
    """
    plan = replace(plan, collectives="plain") if variant_of(plan.collectives).looped else plan
    limit = limit or (plan.cache_len if time == 1 else time)
    kind = kind or plan.model.layer_kinds[-1]
    return [each for each in _all(plan, time, limit, kind, ragged) if each.axes]


def _all(plan: Plan, time: int, limit: int, kind: LayerKind, ragged: bool) -> Iterator[Transfer]:
    axes = plan.axes
    tokens = plan.batch_size // axes.size(axes.batch) * time
    yield from _norms(plan, tokens)
    yield from _projections(plan, tokens, kind)
    if kind.has_experts:
        yield from expert_transfers(plan, tokens, ragged=ragged)
        if plan.model.shared_expert_gate:
            yield from _sum(plan, 4 * tokens, "shared gate")
    yield from attention_transfers(plan, tokens, time, limit)


def _projections(plan: Plan, tokens: int, kind: LayerKind) -> Iterator[Transfer]:
    axes = plan.axes
    element = BYTES_PER_ELEMENT[stream_dtype(plan)]
    read = BYTES_PER_ELEMENT["int8"] if plan.act_dtype == "int8" else element
    rows, columns = axes.gathered
    inputs, outputs, shared = input_parts(plan), output_parts(plan), shared_parts(plan)
    if kind.has_experts:
        inputs, outputs = {"attn": inputs["attn"]}, {"attn": outputs["attn"]}
        if shared is not None:
            inputs, outputs = inputs | {"shared": shared[0]}, outputs | {"shared": shared[1]}
    for name, into in inputs.items():
        inward, outward = (sum(width for _, width in parts[name]) for parts in (inputs, outputs))
        separate = plan.separates_tensors
        for width in matmul_widths(plan, into) if separate else [inward]:
            yield from _gathered_weights(plan, width, name, (rows, columns))
        for _, width in outputs[name] if separate else [("", outward)]:
            yield from _gathered_weights(plan, width, name, (columns, rows))
        yield from _gathered_vectors(plan, inward, name)
        if plan.act_dtype == "int8":
            yield transfer("all-reduce", axes.scattered, 4 * tokens, f"{name}.in scale")
            yield transfer("all-reduce", axes.embed, 4 * tokens, f"{name}.out scale")
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
            if name == "shared" and (each.kind, each.side) == ("all-gather", "in") and _gathers_alike(plan):
                continue  # what the routed experts gather as well
            # Gathered values are in int8 for int8 matmuls, sums in the residual stream's dtype.
            size = each.size * (read if each.kind == "all-gather" else element)
            yield transfer(each.kind, axes.nontrivial(each.axes), size, f"{name}.{each.side}")


def _gathers_alike(plan: Plan) -> bool:
    """Whether routed experts gather the residual stream over the axes of F, as a projection does."""
    return not plan.experts.all_to_all and plan.experts.whole == plan.axes.scattered


def _sum(plan: Plan, size: int, what: str) -> Iterator[Transfer]:
    """A sum of ``size`` bytes over the residual stream's axes."""
    shards = plan.axes.size(plan.axes.residual)
    if gathers_terms(size, shards):
        yield transfer("all-gather", plan.axes.residual, size * shards, what)
    else:
        yield transfer("all-reduce", plan.axes.residual, size, what)


def _norms(plan: Plan, tokens: int) -> Iterator[Transfer]:
    statistics = 2 if plan.model.norm == "layernorm" else 1
    for _ in norm_names(plan.model):
        yield from _sum(plan, 4 * statistics * tokens, "norm")


def _gathered_weights(plan: Plan, width: int, name: str, axes: tuple[Axes, Axes]) -> Iterator[Transfer]:
    """All-gathers of one matrix, along its contracted dimension first; each payload is what a chip holds after it.

    Scales and zero points of groups are gathered as the weights are.
    """
    for part, size in parts_of_a_weight(plan).items():
        held = size * plan.model.d_model * width
        for each in axes:
            held *= plan.axes.size(each)
            yield transfer("all-gather", each, held, f"{name} {part}")


def _gathered_vectors(plan: Plan, width: int, name: str) -> Iterator[Transfer]:
    """float32 scales and biases of the input columns."""
    axes, cut = plan.axes.vector
    chunks = plan.local_chunks * plan.axes.size(cut)
    has_bias = (plan.model.attn_bias and name not in ("ffn", "shared")) or (plan.model.ffn_bias and name != "attn")
    for present in (plan.weight_dtype in LARGEST and plan.weight_group_size is None, has_bias):
        if present:
            yield transfer("all-gather", axes, 4 * chunks * width, f"{name} vectors")
