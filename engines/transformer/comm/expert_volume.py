"""Communication volume of a layer's experts, in closed form; a part of :mod:`comm.volume`.

With a ragged all-to-all, on a TPU, volumes are those of balanced routing: rows that are sent, and of the columns that
chips sum inside an expert those that the way of so few rows multiplies. Elsewhere they are all rows that there may be.
"""

from collections.abc import Iterator

from engines.core.dtypes import BYTES_PER_ELEMENT, LARGEST
from engines.core.volume import expert_payloads
from engines.transformer.comm.collectives import gathers_terms
from engines.transformer.comm.transfer import Transfer, parts_of_a_weight, transfer
from engines.transformer.layers.expert_rows import room_for
from engines.transformer.layers.expert_ways import rows_multiplied
from engines.transformer.params.quantize import stream_dtype
from engines.transformer.partition.plan import Plan


def expert_transfers(plan: Plan, tokens: int, *, ragged: bool) -> Iterator[Transfer]:
    """Every collective of a layer's routed experts; ``tokens`` are a chip's share of the residual stream's."""
    here, axes, experts = plan.experts, plan.axes, plan.model.experts
    assert experts is not None
    element, count = BYTES_PER_ELEMENT[stream_dtype(plan)], plan.local_experts
    own = tokens // axes.size(here.spread) if here.all_to_all else tokens * axes.size(here.batch)
    sources = here.shards if here.all_to_all else 1
    if plan.expert_capacity is not None:
        sent, rows = experts.count * plan.capacity_of(own), count * sources * plan.capacity_of(own)
    else:
        rows = sources * own * min(experts.per_token, count)
        sent = own * experts.per_token if ragged else rows
        if ragged:
            arrived = room_for(sent, rows) if here.all_to_all else own
            copies = 1 if here.all_to_all else min(experts.per_token, count)
            rows = rows_multiplied(plan, arrived, sources * own, copies)
    yield from _weights(plan)
    logits = 4 * own * experts.count
    if gathers_terms(logits, axes.size(here.embed)):
        yield transfer("all-gather", here.embed, logits * axes.size(here.embed), "router")
    else:
        yield transfer("all-reduce", here.embed, logits, "router")
    if here.all_to_all and plan.expert_capacity is None:
        yield transfer("all-gather", here.experts, 4 * experts.count * here.shards, "experts counts")
    chunks = here.chunks // axes.size(here.ffn)
    width = experts.expert.d_ff // here.chunks
    payloads = expert_payloads(
        axes.layout,
        "".join(here.experts),
        lambda names: axes.size(tuple(names)),
        sends=here.all_to_all,
        tokens=tokens,
        d_model=plan.model.d_model,
        sent=sent,
        rows=rows,
        inward=chunks * width * len(experts.expert.inputs),
        outward=chunks * width,
        whole_residual=axes.whole_residual,
    )
    for each in payloads:
        yield transfer(each.kind, axes.nontrivial(each.axes), each.size * element, f"experts.{each.side}")


def _weights(plan: Plan) -> Iterator[Transfer]:
    """Experts' matrices, scales and biases, where the layout gathers weights."""
    here, axes, experts = plan.experts, plan.axes, plan.model.experts
    assert experts is not None
    (rows, columns), count = here.gathered, plan.local_experts
    e = plan.model.d_model // axes.size(here.stored_embed)
    f = experts.expert.d_ff // axes.size(here.stored_ffn)
    inputs = len(experts.expert.inputs)
    grouped = plan.weight_group_size is not None
    for over, cut, vector in (
        ((rows, columns), inputs, f * inputs * axes.size(columns)),
        ((columns, rows), 1, e * axes.size(rows)),
    ):
        for part, size in parts_of_a_weight(plan).items():
            held = size * count * e * f * cut
            for each in over:
                held *= axes.size(each)
                yield transfer("all-gather", each, held, f"experts {part}")
        for present in (plan.weight_dtype in LARGEST and not grouped, experts.expert.has_bias):
            if present:
                yield transfer("all-gather", over[1], 4 * count * vector, "experts vectors")
