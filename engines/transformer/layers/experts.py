"""A mixture of experts in a layer: routing, the experts of this chip, and the expert that reads every token.

Tokens reach the experts of other chips in one of two ways (:class:`engines.transformer.partition.expert_axes`):

- ``gather``: all chips of the expert axes have all tokens, as all chips of F's axes have in a dense layer; each
  computes what its experts make of them, and the sum over experts is part of the sum over F. For few tokens.
- ``all_to_all``: each chip routes its own tokens and sends each to the chips of its experts (:mod:`comm.dispatch`).

A capacity bounds the tokens of an expert: those that come later are dropped, and add nothing.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from engines.transformer.comm.collectives import all_gather, all_reduce, axis_index, local_shard, reduce_scatter
from engines.transformer.comm.dispatch import expert_of_arrived, send, send_back
from engines.transformer.layers.expert_matmul import ExpertFeedForward
from engines.transformer.layers.expert_rows import into_buffers, slot_of_copy, sort_by_group
from engines.transformer.layers.expert_tokens import from_tokens, to_tokens
from engines.transformer.layers.mlp import feed_forward
from engines.transformer.layers.projections import local_embed
from engines.transformer.layers.router import Choice, choose
from engines.transformer.params.parameters import parameter_specs
from engines.transformer.params.tree import ExpertParameters, Matrix, Stacked, map_matrices
from engines.transformer.partition.plan import Plan


def mixture(plan: Plan, w: ExpertParameters, x: Array) -> Array:
    """x: [tokens, E.residual] → the same: the weighted sum of each token's experts, and of the shared one."""
    out = _routed(plan, w, x)
    if w.shared is None:
        return out
    shared = feed_forward(plan, w.shared, x)
    if w.shared_gate is not None:
        terms = (x.astype(jnp.float32) * local_embed(plan, w.shared_gate)).sum(-1)
        gate = jax.nn.sigmoid(all_reduce(terms, plan.axes.residual))
        shared = (shared * gate[:, None]).astype(x.dtype)
    return out + shared


def _routed(plan: Plan, w: ExpertParameters, x: Array) -> Array:
    """The routed experts alone. Where a compiler partitions, their part of the program is partitioned by the plan."""
    if plan.annotation is None:
        return (_sending if plan.experts.all_to_all else _gathering)(plan, w, x)
    cut, mesh = plan.annotation
    inner, spec = replace(cut, partitioner="manual"), P(cut.axes.batch or None, cut.axes.residual or None)
    specs = next(each.experts for each in parameter_specs(cut).layers if each.experts is not None)
    own, number = replace(w, shared=None, shared_gate=None), w.router.values.layer

    def local(w: ExpertParameters, number: Array, x: Array) -> Array:
        layer = map_matrices(lambda each: replace(each, values=Stacked(each.values, number)), w)
        return _routed(inner, layer, x)

    def without_layers(spec: P | None) -> P | None:
        return None if spec is None else P(*spec[1:])

    def matrix_specs(spec: Matrix) -> Matrix:
        return replace(spec, scale=without_layers(spec.scale), bias=without_layers(spec.bias))

    specs = replace(map_matrices(matrix_specs, specs), shared=None, shared_gate=None)
    arrays = map_matrices(lambda each: replace(each, values=each.values.stack), own)
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(specs, P(), spec), out_specs=spec, check_vma=False)
    out: Array = mapped(arrays, jnp.asarray(number, jnp.int32), x)
    return out


def _gathering(plan: Plan, w: ExpertParameters, x: Array) -> Array:
    """All tokens of the expert axes on each of their chips."""
    here = plan.experts
    tokens = all_gather(all_gather(x, here.whole, 1), here.batch, 0)
    chosen = route(plan, w, tokens)
    count = plan.local_experts
    group = chosen.experts - axis_index(here.experts) * count
    group = jnp.where((group >= 0) & (group < count), group, count)
    out = _of_tokens(plan, w, tokens, Choice(group, chosen.weights))
    out = reduce_scatter(out.astype(x.dtype), here.batch, 0)
    out = reduce_scatter(out, here.whole, 1)
    return lax.psum(out, plan.axes.summed) if plan.axes.summed else out


def _sending(plan: Plan, w: ExpertParameters, x: Array) -> Array:
    """Each chip's own tokens, sent to the chips of their experts and back."""
    here = plan.experts
    tokens = to_tokens(plan, x)
    chosen = route(plan, w, tokens)
    experts = ExpertFeedForward(plan, w)
    count, (local, k), width = plan.local_experts, chosen.experts.shape, tokens.shape[1]
    flat = chosen.experts.reshape(-1)
    rows = sort_by_group(flat, count * here.shards)
    if plan.expert_capacity is not None:
        capacity = plan.capacity_of(local)
        copies, there = into_buffers(rows, capacity)
        buffers = jnp.where(there[..., None], tokens[copies // k], 0)
        arrived = lax.all_to_all(buffers.reshape(here.shards, count, capacity, width), here.experts, 0, 0, tiled=True)
        made = experts.of_buffers(arrived.swapaxes(0, 1).reshape(count, -1, width))
        made = made.reshape(count, here.shards, capacity, width).swapaxes(0, 1)
        back = lax.all_to_all(made, here.experts, 0, 0, tiled=True).reshape(-1, width)
        place, kept = slot_of_copy(rows, flat, capacity)
    else:
        slots = local * min(k, count)
        arrived, sent = send(tokens[rows.order // k], rows.sizes, here.experts, here.shards, slots)
        mine = sort_by_group(expert_of_arrived(sent), count)
        made = experts.of_sorted(arrived[mine.order], mine.sizes, local * here.shards)
        back = send_back(made[mine.places], sent, len(flat))
        place, kept = rows.places, jnp.ones(len(flat), bool)
    terms = jnp.where(kept[:, None], back[place] * chosen.weights.reshape(-1, 1), 0)
    out = terms.reshape(local, k, width).sum(1).astype(x.dtype)
    return from_tokens(plan, out)


def route(plan: Plan, w: ExpertParameters, x: Array) -> Choice:
    """x: [tokens, E.embed] of an expert → the choice of each token."""
    embed = plan.experts.embed
    matrix = local_shard(w.router.values.whole(), embed, 0, plan.axes.size(embed))
    precision = lax.Precision.HIGHEST if plan.act_dtype == "float32" else lax.Precision.DEFAULT
    logits = jnp.einsum("te,en->tn", x, matrix.astype(x.dtype), precision=precision, preferred_element_type=jnp.float32)
    logits = all_reduce(logits, embed)
    if w.router.bias is not None:
        logits = logits + w.router.bias
    return choose(plan.model, logits, w.correction)


def _of_tokens(plan: Plan, w: ExpertParameters, x: Array, chosen: Choice) -> Array:
    """x: [tokens, E.embed], whose experts are numbers of this chip's → [tokens, E.embed] {unreduced}, float32."""
    experts = ExpertFeedForward(plan, w)
    if experts.takes_all(len(x)):
        out: Array = lax.platform_dependent(
            x, tpu=partial(_of_all, plan, experts, chosen), default=partial(_of_chosen, plan, experts, chosen)
        )
        return out
    return _of_chosen(plan, experts, chosen, x)


def _of_all(plan: Plan, experts: ExpertFeedForward, chosen: Choice, x: Array) -> Array:
    """:func:`_of_tokens` where every token goes through every expert of the chip, times 0 where it is not chosen."""
    numbers = jnp.arange(plan.local_experts)
    weights = jnp.where(chosen.experts[..., None] == numbers, chosen.weights[..., None], 0).sum(1)
    made = experts.of_buffers(jnp.broadcast_to(x, (plan.local_experts, *x.shape)))
    return (made * weights.T[..., None]).sum(0)


def _of_chosen(plan: Plan, experts: ExpertFeedForward, chosen: Choice, x: Array) -> Array:
    """:func:`_of_tokens` where each token goes through its own experts."""
    count, (tokens, k) = plan.local_experts, chosen.experts.shape
    groups = chosen.experts.reshape(-1)
    rows = sort_by_group(groups, count)
    if plan.expert_capacity is not None:
        capacity = plan.capacity_of(tokens)
        copies, there = into_buffers(rows, capacity)
        buffers = jnp.where(there[..., None], x[copies // k], 0)
        made = experts.of_buffers(buffers).reshape(-1, x.shape[1])
        place, kept = slot_of_copy(rows, groups, capacity)
    else:
        bound = tokens * min(k, count)
        made = experts.of_sorted(x[rows.order[:bound] // k], rows.sizes, tokens)
        place, kept = jnp.minimum(rows.places, bound - 1), groups < count
    terms = jnp.where(kept[:, None], made[place] * chosen.weights.reshape(-1, 1), 0)
    return terms.reshape(tokens, k, -1).sum(1)
