"""The mixture of experts of the reference: a loop over all experts."""

from collections.abc import Callable

import torch
from torch import Tensor

from engines.core.experts import Experts
from engines.core.feed_forward import FeedForward

Weights = dict[str, Tensor]
Dense = Callable[[FeedForward, Weights, str, Tensor], Tensor]


def experts(layer: Experts, w: Weights, x: Tensor, dense: Dense) -> Tensor:
    """x: [batch, time, embed] → the same; ``dense`` is one feed-forward."""
    tokens = x.flatten(0, 1)
    chosen, weights = route(layer, w, tokens)
    out = torch.zeros_like(tokens)
    own = {name.removeprefix("experts."): each for name, each in w.items() if name.startswith("experts.")}
    for number in range(layer.count):
        rows, places = torch.where(chosen == number)
        one = {name: each[number] for name, each in own.items()}
        out[rows] += weights[rows, places, None] * dense(layer.expert, one, "", tokens[rows])
    if layer.shared is not None:
        shared = dense(layer.shared, w, "shared.", tokens)
        out = out + (torch.sigmoid(tokens @ w["shared_gate"]) * shared if layer.keys.shared_expert_gate else shared)
    return out.view_as(x)


def route(layer: Experts, w: Weights, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """tokens: [tokens, embed] → the experts of each token and their weights, [tokens, per_token] each."""
    keys = layer.keys
    logits = tokens @ w["router"]
    if keys.router_bias:
        logits = logits + w["router_bias"]
    match keys.router_score:
        case "softmax":
            scores = logits.softmax(dim=-1)
        case "sigmoid":
            scores = torch.sigmoid(logits)
        case "topk_softmax":
            scores = logits
    ranked = scores + w["router_correction"] if keys.router_correction else scores
    if keys.router_groups > 1:
        grouped = ranked.unflatten(-1, (keys.router_groups, -1))
        best = grouped.sort(dim=-1, descending=True).values[..., : keys.router_group_best].sum(dim=-1)
        kept = best.argsort(dim=-1, descending=True, stable=True)[:, : keys.router_groups_kept]
        left = torch.ones_like(best, dtype=torch.bool).scatter(1, kept, False)
        ranked = grouped.masked_fill(left[..., None], -torch.inf).flatten(1)
    chosen = ranked.argsort(dim=-1, descending=True, stable=True)[:, : layer.per_token]
    weights = scores.gather(1, chosen)
    if keys.router_score == "topk_softmax":
        weights = weights.softmax(dim=-1)
    if keys.router_normalized:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return chosen, weights * keys.router_scale
