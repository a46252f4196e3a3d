"""The router of a mixture of experts: which experts a token goes to, and with what weight each result counts.

Where two scores are equal, the expert of the lower number is chosen, as by ``lax.top_k``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.core.experts import ExpertKeys


class Choice(NamedTuple):
    """``experts`` [tokens, k] int32, the highest score first, and the float32 ``weights`` of their results."""

    experts: Array
    weights: Array


def choose(keys: ExpertKeys, logits: Array, correction: Array | None = None) -> Choice:
    """Router logits [tokens, N] in float32, ``correction`` [N] of the choice → :class:`Choice`.

    :class:`engines.core.experts.ExpertKeys` says what each key does; those of DeepSeek-V3 are its equations 12 to 16
    (arXiv 2412.19437), with groups of experts as in its section 2.1.2.
    """
    assert keys.experts_per_token is not None
    if keys.router_score == "softmax":
        scores = jax.nn.softmax(logits, axis=-1)
    else:
        scores = jax.nn.sigmoid(logits) if keys.router_score == "sigmoid" else logits
    preferred = _of_kept_groups(keys, scores if correction is None else scores + correction)
    _, experts = lax.top_k(preferred, keys.experts_per_token)
    weights = jnp.take_along_axis(scores, experts, axis=-1)
    if keys.router_score == "topk_softmax":
        weights = jax.nn.softmax(weights, axis=-1)
    if keys.router_normalized:
        weights = weights / (weights.sum(-1, keepdims=True) + 1e-20)
    return Choice(experts, weights * keys.router_scale)


def _of_kept_groups(keys: ExpertKeys, scores: Array) -> Array:
    """Scores [tokens, N], −∞ of the experts in groups that are not kept."""
    if keys.router_groups == keys.router_groups_kept:
        return scores
    grouped = scores.reshape(len(scores), keys.router_groups, -1)
    best, _ = lax.top_k(grouped, min(keys.router_group_best, grouped.shape[-1]))
    _, kept = lax.top_k(best.sum(-1), keys.router_groups_kept)
    there = (kept[..., None] == jnp.arange(keys.router_groups)).any(1)
    return jnp.where(there[..., None], grouped, -jnp.inf).reshape(scores.shape)
