"""A rank's experts: the router's choice, and each token through those of its experts that this rank holds."""

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.core.experts import Experts
from engines.torch.activation import activated
from engines.torch.collectives import Collectives
from engines.torch.grouped_matmul import grouped_matmul
from engines.torch.parameters import LayerParameters, Matrix
from engines.torch.shard import Shard


def route(layer: Experts, w: LayerParameters, x: Tensor) -> tuple[Tensor, Tensor]:
    """x: [tokens, embed] → the experts of each token and, in float32, their weights, [tokens, per_token] each."""
    keys = layer.keys
    logits = F.linear(x.float(), w.vectors["router"], w.vectors.get("router_bias"))
    if keys.router_score == "topk_softmax":
        scores = logits
    else:
        scores = logits.softmax(dim=-1) if keys.router_score == "softmax" else logits.sigmoid()
    ranked = scores + w.vectors["router_correction"] if keys.router_correction else scores
    if keys.router_groups > 1:
        grouped = ranked.unflatten(-1, (keys.router_groups, -1))
        best = grouped.topk(min(keys.router_group_best, grouped.shape[-1]), dim=-1).values.sum(dim=-1)
        kept = best.topk(keys.router_groups_kept, dim=-1).indices
        is_kept = torch.zeros_like(best).scatter(1, kept, 1.0) > 0
        ranked = grouped.masked_fill(~is_kept[..., None], -torch.inf).flatten(1)
    chosen = ranked.topk(layer.per_token, dim=-1).indices
    weights = scores.gather(1, chosen)
    if keys.router_score == "topk_softmax":
        weights = weights.softmax(dim=-1)
    if keys.router_normalized:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return chosen, weights * keys.router_scale


def partial_experts(shard: Shard, layer: Experts, w: LayerParameters, x: Tensor) -> Tensor:
    """x: [..., embed], the same on all tensor ranks → this rank's part of the sum over them."""
    tokens = x.flatten(0, -2)
    chosen, weights = route(layer, w, tokens)
    own = shard.own_experts
    held = own.stop - own.start
    local = chosen - own.start
    local = torch.where((local >= 0) & (local < held), local, held).flatten()  # others come last, and are left out
    out = _through(layer, w, tokens, local).unflatten(0, chosen.shape)
    return (out * weights[..., None].to(out.dtype)).sum(dim=1).view_as(x)


def sent_to_experts(shard: Shard, layer: Experts, w: LayerParameters, x: Tensor, collectives: Collectives) -> Tensor:
    """x: [..., embed] of this rank's own tokens → the whole sum: tokens go to their experts' ranks and back.

    Each token goes once to each of its experts.
    """
    tokens = x.flatten(0, -2)
    chosen, weights = route(layer, w, tokens)
    own = shard.own_experts
    held = own.stop - own.start
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    ids = flat[order]
    ends = torch.searchsorted(ids, torch.arange(1, shard.experts + 1, device=ids.device) * held)
    counts = ends.diff(prepend=ends.new_zeros(1))
    sent = collectives.exchange(tokens[order // layer.per_token], counts)
    local = collectives.exchange(ids[:, None], counts, sent.received)
    out = _through(layer, w, sent.rows, local.rows[:, 0] - own.start)
    back = collectives.exchange(out, counts, sent.received, backward=True).rows
    found = torch.empty_like(back).index_copy_(0, order, back).unflatten(0, chosen.shape)
    return (found * weights[..., None].to(found.dtype)).sum(dim=1).view_as(x)


def _through(layer: Experts, w: LayerParameters, x: Tensor, expert: Tensor) -> Tensor:
    """x: [tokens, embed] → [rows, embed], each through its ``expert`` [rows], as many for each token.

    Zero where that is none of this rank's.
    """
    inputs, wo = w.matrices["experts.inputs"], w.matrices["experts.wo"]
    held = inputs.weight.shape[0]
    order = expert.argsort(stable=True)
    ids = expert[order]
    ends = torch.searchsorted(ids, torch.arange(held, device=ids.device), right=True).int()
    number = ids.clamp(max=held - 1)
    rows = x if len(x) == 0 else x[order // (len(order) // len(x))]
    hidden = activated(layer.expert.activation, _grouped(w, "experts.inputs", inputs, rows, ends, number))
    out = _grouped(w, "experts.wo", wo, hidden, ends, number)
    out = torch.where((ids < held)[:, None], out, 0)  # what no group wrote is undefined
    return torch.empty_like(out).index_copy_(0, order, out)


def _grouped(w: LayerParameters, name: str, matrix: Matrix, rows: Tensor, ends: Tensor, number: Tensor) -> Tensor:
    """rows: [rows, in], sorted by expert → [rows, out] with the expert's bias; ``number`` [rows] is the expert."""
    out = grouped_matmul(rows, matrix.weight.to(rows.dtype), ends)
    if matrix.scale is not None:
        out = out * matrix.scale[number]
    bias = w.vectors.get(f"{name}_bias")
    return out if bias is None else out + bias[number]
