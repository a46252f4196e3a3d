"""A mixture of experts in a layer: routing, the experts of this chip, and the expert that reads every token.

Tokens reach the experts of other chips in one of two ways (:class:`engines.transformer.partition.expert_axes`):

- ``gather``: all chips of the expert axes have all tokens, as all chips of F's axes have in a dense layer; each
  computes what its experts make of them, and the sum over experts is part of the sum over F. For few tokens.
- ``all_to_all``: each chip routes its own tokens and sends each to the chips of its experts (:mod:`comm.dispatch`).

A capacity bounds the tokens of an expert: those that come later are dropped, and add nothing.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collectives import all_gather, all_reduce, axis_index, local_shard, reduce_scatter
from engines.transformer.layers.expert_matmul import ExpertFeedForward
from engines.transformer.layers.expert_rows import into_buffers, slot_of_copy, sort_by_group
from engines.transformer.layers.mlp import feed_forward
from engines.transformer.layers.projections import local_embed
from engines.transformer.layers.router import Choice, choose
from engines.transformer.params.tree import ExpertParameters
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
    return _gathering(plan, w, x)


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
    count, (tokens, k) = plan.local_experts, chosen.experts.shape
    groups = chosen.experts.reshape(-1)
    rows, experts = sort_by_group(groups, count), ExpertFeedForward(plan, w)
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
