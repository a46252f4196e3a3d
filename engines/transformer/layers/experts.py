"""A mixture of experts in a layer: routing, the experts of this chip, and the expert that reads every token.

Tokens reach the experts of other chips in one of two ways (:class:`engines.transformer.partition.expert_axes`):

- ``gather``: all chips of the expert axes have all tokens, as all chips of F's axes have in a dense layer; each
  computes what its experts make of them, and the sum over experts is part of the sum over F. For few tokens.
- ``all_to_all``: each chip routes its own tokens and sends each to the chips of its experts (:mod:`comm.dispatch`).
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from engines.transformer.comm.collectives import all_gather, all_reduce, axis_index, local_shard, reduce_scatter
from engines.transformer.comm.dispatch import Exchange, PaddedExchange, RaggedExchange, arrivals
from engines.transformer.layers.expert_matmul import ExpertFeedForward
from engines.transformer.layers.expert_rows import Rows, into_buffers, room_for, slot_of_copy, sort_by_group
from engines.transformer.layers.expert_tokens import from_tokens, to_tokens
from engines.transformer.layers.expert_ways import in_turns, of_tokens
from engines.transformer.layers.mlp import feed_forward
from engines.transformer.layers.projections import local_embed
from engines.transformer.layers.router import Choice, choose
from engines.transformer.params.parameters import parameter_specs
from engines.transformer.params.tree import ExpertParameters, Matrix, Stacked, map_matrices
from engines.transformer.partition.constraint import around_experts, constrain
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
    inner, (before, behind) = replace(cut, partitioner="manual"), around_experts(cut)
    entering, scattered = cut.experts.entering(before), cut.experts.scattered(behind)
    specs = next(each.experts for each in parameter_specs(cut).layers if each.experts is not None)
    own, number = replace(w, shared=None, shared_gate=None), w.router.values.layer

    def local(w: ExpertParameters, number: Array, x: Array) -> Array:
        layer = map_matrices(lambda each: replace(each, values=Stacked(each.values, number)), w)
        out = _routed(inner, layer, x)
        for dim, axes in enumerate(scattered):
            out = reduce_scatter(out, axes, dim)
        return all_reduce(out, tuple(axis for axis in cut.experts.unreduced if axis not in sum(scattered, ())))

    def without_layers(spec: P | None) -> P | None:
        return None if spec is None else P(*spec[1:])

    def matrix_specs(spec: Matrix) -> Matrix:
        return replace(spec, scale=without_layers(spec.scale), bias=without_layers(spec.bias))

    specs = replace(map_matrices(matrix_specs, specs), shared=None, shared_gate=None)
    arrays = map_matrices(lambda each: replace(each, values=each.values.stack), own)
    leaving = [axes + more for axes, more in zip(entering, scattered, strict=True)]
    in_spec, out_spec = (P(*(axes or None for axes in dims)) for dims in (entering, leaving))
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(specs, P(), in_spec), out_specs=out_spec, check_vma=False)
    out: Array = mapped(arrays, jnp.asarray(number, jnp.int32), constrain(plan, x, lambda _plan: before))
    return constrain(plan, out, lambda _plan: behind)


def _gathering(plan: Plan, w: ExpertParameters, x: Array) -> Array:
    """All tokens of the expert axes on each of their chips."""
    here = plan.experts
    tokens = all_gather(all_gather(x, here.whole, 1), here.batch, 0)
    chosen = route(plan, w, tokens)
    group = _among(plan, chosen.experts, plan.local_experts)
    out = of_tokens(plan, ExpertFeedForward(plan, w), tokens, Choice(group, chosen.weights), len(tokens))
    out = reduce_scatter(out.astype(x.dtype), here.batch, 0)
    out = reduce_scatter(out, here.whole, 1)
    return lax.psum(out, plan.axes.summed) if plan.axes.summed else out


def _among(plan: Plan, experts: Array, count: int) -> Array:
    """Numbers of experts among the ``count`` of this chip's part along the axes that hold the same tokens.

    ``count`` of experts elsewhere.
    """
    number = experts - axis_index(plan.experts.held) * count
    return jnp.where((number >= 0) & (number < count), number, count)


def _sending(plan: Plan, w: ExpertParameters, x: Array) -> Array:
    """Each chip's own tokens, sent to the chips of their experts and back."""
    here = plan.experts
    tokens = to_tokens(plan, x)
    chosen = route(plan, w, tokens)
    local, k = chosen.experts.shape
    count = plan.local_experts * plan.axes.size(here.sent)
    reached = _among(plan, chosen.experts, count) if here.held else chosen.experts
    experts, flat = ExpertFeedForward(plan, w), reached.reshape(-1)
    rows = sort_by_group(flat, count)
    if plan.expert_capacity is None:
        back = _there_and_back(plan, experts, tokens, rows, k)
        place, kept = rows.places, flat < count if here.held else jnp.ones(len(flat), bool)
    else:
        capacity = plan.capacity_of(local)
        back = _buffers_there_and_back(plan, experts, tokens, into_buffers(rows, capacity), k)
        place, kept = slot_of_copy(rows, flat, capacity)
    terms = jnp.where(kept[:, None], back[place] * chosen.weights.reshape(-1, 1), 0)
    out = terms.reshape(local, k, -1).sum(1).astype(x.dtype)
    return from_tokens(plan, out)


def _there_and_back(plan: Plan, experts: ExpertFeedForward, tokens: Array, rows: Rows, k: int) -> Array:
    """[tokens · k, E.embed]: what experts made of the copies of tokens, in the order of ``rows``.

    With as much room as a balanced router needs and some; what does not fit takes further turns.
    """
    axes, count, local = plan.experts.sent, plan.local_experts, len(tokens)
    shards, counts = plan.axes.size(axes), arrivals(rows.sizes, axes)
    slots = local * min(k, count)

    def through(exchange: Exchange, copies: Array) -> Array:
        def turn(number: Array, back: Array) -> Array:
            expert = exchange.experts(number)[:, None]
            arrived = exchange.send(copies, number)
            alone = Choice(expert, jnp.ones(expert.shape, jnp.float32))
            ours = experts if exchange.turns is None else experts.in_turn(number)
            made = of_tokens(plan, ours, arrived, alone, local * shards)
            return exchange.send_back(made.astype(copies.dtype), number, back)

        nothing = jnp.zeros_like(copies)
        return turn(jnp.int32(0), nothing) if exchange.turns is None else in_turns(exchange.turns, turn, nothing)

    most = shards * slots
    ragged = RaggedExchange(counts, axes, room_for(local * k, most), most)
    padded = PaddedExchange(counts, axes, slots)
    out: Array = lax.platform_dependent(
        tokens[rows.order // k], tpu=partial(through, ragged), default=partial(through, padded)
    )
    return out


def _buffers_there_and_back(
    plan: Plan, experts: ExpertFeedForward, tokens: Array, buffers: tuple[Array, Array], k: int
) -> Array:
    """[experts · capacity, E.embed]: what experts made of buffers (the copy of each slot, whether there is one)."""
    axes, count, width = plan.experts.sent, plan.local_experts, tokens.shape[1]
    copies, there = buffers
    shards, capacity = plan.axes.size(axes), copies.shape[1]
    sent = jnp.where(there[..., None], tokens[copies // k], 0).reshape(shards, count, capacity, width)
    arrived = lax.all_to_all(sent, axes, 0, 0, tiled=True)
    made = experts.of_buffers(arrived.swapaxes(0, 1).reshape(count, -1, width))
    made = made.reshape(count, shards, capacity, width).swapaxes(0, 1)
    back: Array = lax.all_to_all(made, axes, 0, 0, tiled=True).reshape(-1, width)
    return back


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
