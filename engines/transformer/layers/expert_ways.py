"""Which way rows go through the experts of a chip, and what comes of them for each token.

On a TPU the number of rows chooses, whatever a router may then do with them:

- ``all``: up to a tile of rows, of which most experts get some, go through every expert, times 0 where it is not
  chosen. Nothing is sorted, and the compiler can fetch matrices while chips wait for each other.
- ``hit``: as few rows, of which most experts get none: a loop over the experts that have some.
- ``turns``: of more rows every expert takes as many as a balanced router gives it and some, in one batched matmul; what
  is over takes further turns, so that nothing is dropped. Matrices are read as they are stored, narrow ones too.
- ``ragged``: of many rows, a kernel for sorted rows, before which narrow matrices are converted.

Elsewhere sorted rows go through a loop over blocks. A capacity bounds the rows of an expert on every device: those that
come later are dropped, and add nothing.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Final, Literal, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.core.routing import distinct_experts, turns_scope
from engines.transformer.layers.expert_matmul import ExpertFeedForward
from engines.transformer.layers.expert_rows import Rows, into_buffers, room_for, slot_of_copy, sort_by_group
from engines.transformer.layers.router import Choice
from engines.transformer.partition.plan import Plan
from engines.transformer.partition.resolve_experts import ROW_TILE

LEAST_HIT: Final = 0.75
"""Share of experts with tokens from which reading all of them takes less than a loop over those that have some."""
MOST_SPARED: Final = 3
"""Rows, by the room of an expert in a turn, up to which sorting them takes longer than multiplying all."""
MOST_ROWS: Final = 256
"""Mean rows of an expert up to which a turn pads less than the kernel, which multiplies whole tiles of each expert."""
MOST_COMBINED: Final = 1024
"""Tokens up to which adding an expert's rows to them is a small matmul beside the experts' own."""

Way = Literal["all", "hit", "turns", "ragged"]
Value = TypeVar("Value")


def way_of(plan: Plan, rows: int, routed: int) -> Way:
    """How a TPU's experts take ``rows`` rows on a chip, of ``routed`` tokens that its group of chips routes."""
    experts = plan.model.experts
    assert experts is not None
    if rows <= ROW_TILE and experts_hit(plan, routed) < LEAST_HIT * plan.local_experts:
        return "hit"
    if rows <= min(ROW_TILE, MOST_SPARED * room_for(_mean(plan, routed), rows)):
        return "all"
    return "turns" if _mean(plan, routed) <= MOST_ROWS and rows <= MOST_COMBINED else "ragged"


def experts_hit(plan: Plan, routed: int) -> float:
    """Experts of a chip that get some of ``routed`` tokens when routing is balanced."""
    experts = plan.model.experts
    assert experts is not None
    hit = float(distinct_experts(experts.count, experts.per_token, routed))
    return hit / experts.count * plan.local_experts


def rows_multiplied(plan: Plan, rows: int, routed: int, copies: int) -> int:
    """Rows of matmuls, of all experts of a TPU's chip together, when routing is balanced.

    ``copies`` is how many experts of the chip one of ``rows`` has at most.
    """
    way, count = way_of(plan, rows, routed), plan.local_experts
    if way == "turns":
        return count * room_for(_mean(plan, routed), rows)
    return rows * {"all": count, "hit": _hit_turns(plan, routed), "ragged": copies}[way]


def of_tokens(plan: Plan, experts: ExpertFeedForward, x: Array, chosen: Choice, routed: int) -> Array:
    """x: [rows, E.embed], whose experts are numbers of this chip's, or their number → the same {unreduced}, float32.

    ``routed`` tokens are those of the whole group of chips that share the experts.
    """
    if plan.expert_capacity is not None:
        return _within_capacity(plan, experts, chosen, x)
    on_tpu: Callable[[Array], Array] = {
        "all": partial(_of_all, plan, experts, chosen),
        "hit": partial(_of_hit, plan, experts, chosen, routed),
        "turns": partial(_of_turns, plan, experts, chosen, routed),
        "ragged": partial(_of_sorted, plan, experts, chosen, routed),
    }[way_of(plan, len(x), routed)]
    elsewhere = partial(_of_sorted, plan, experts, chosen, routed)
    out: Array = lax.platform_dependent(x, tpu=on_tpu, default=elsewhere)
    return out


def in_turns(turns: Array, step: Callable[[Array, Value], Value], start: Value) -> Value:
    """``step`` of the turns 0, 1, …, one after the other on what the last one made; there is at least one.

    The first is not part of a loop: of balanced routing it is the only one, and the compiler overlaps it with the rest.
    """
    first = step(jnp.int32(0), start)
    with jax.named_scope(turns_scope(0)):
        last: Value = lax.fori_loop(1, turns, step, first)
    return last


def _mean(plan: Plan, routed: int) -> float:
    experts = plan.model.experts
    assert experts is not None
    return routed * experts.per_token / experts.count


def _hit_turns(plan: Plan, routed: int) -> int:
    return math.ceil(experts_hit(plan, routed))


def _of_all(plan: Plan, experts: ExpertFeedForward, chosen: Choice, x: Array) -> Array:
    """Every row through every expert."""
    weights, _ = _by_expert(plan, chosen)
    made = experts.of_buffers(jnp.broadcast_to(x, (plan.local_experts, *x.shape)))
    return (made * weights[..., None]).sum(0)


def _of_hit(plan: Plan, experts: ExpertFeedForward, chosen: Choice, routed: int, x: Array) -> Array:
    """Every row through each expert that is chosen."""
    weights, hit = _by_expert(plan, chosen)
    numbers = jnp.arange(plan.local_experts, dtype=jnp.int32)
    _, order = lax.sort(((~hit).astype(jnp.int32), numbers), num_keys=1, is_stable=True)

    def add(number: Array, total: Array) -> Array:
        expert = order[number]
        summed: Array = total + experts.of_one(x, expert) * weights[expert][:, None]
        return summed

    with jax.named_scope(turns_scope(_hit_turns(plan, routed))):
        out: Array = lax.fori_loop(0, hit.sum(dtype=jnp.int32), add, jnp.zeros(x.shape, jnp.float32))
    return out


def _by_expert(plan: Plan, chosen: Choice) -> tuple[Array, Array]:
    """([experts, tokens] each expert's weight for a token, 0 where not chosen; [experts] whether one chose it)."""
    mine = chosen.experts[..., None] == jnp.arange(plan.local_experts)
    return jnp.where(mine, chosen.weights[..., None], 0).sum(1).T, mine.any((0, 1))


def _of_turns(plan: Plan, experts: ExpertFeedForward, chosen: Choice, routed: int, x: Array) -> Array:
    """Each expert's next rows in every turn, until there are none.

    Chips that split E of an expert have the same tokens, and so as many turns.
    """
    tokens, k = chosen.experts.shape
    rows = sort_by_group(chosen.experts.reshape(-1), plan.local_experts)
    room = room_for(_mean(plan, routed), tokens)
    precision = lax.Precision.HIGHEST if plan.act_dtype == "float32" else lax.Precision.DEFAULT

    def turn(number: Array, total: Array) -> Array:
        copies, there = into_buffers(rows, room, number * room)
        token = copies // k
        weights = jnp.where(there, chosen.weights.reshape(-1)[copies], 0)
        made = experts.in_turn(number).of_buffers(x[token], weights).reshape(-1, x.shape[1])
        # Which row is whose, a matrix of zeros and ones: exact in any format, and a TPU adds rows by a matmul fastest.
        owner = (jnp.where(there, token, tokens).reshape(-1) == jnp.arange(tokens)[:, None]).astype(made.dtype)
        added = jnp.einsum("tr,re->te", owner, made, precision=precision, preferred_element_type=jnp.float32)
        return total + added

    turns = jnp.maximum(1, -(-rows.sizes.max() // room))
    return in_turns(turns, turn, jnp.zeros(x.shape, jnp.float32))


def _of_sorted(plan: Plan, experts: ExpertFeedForward, chosen: Choice, routed: int, x: Array) -> Array:
    """Rows sorted by expert."""
    rows, groups, k = _sorted(plan, chosen)
    bound = len(x) * min(k, plan.local_experts)
    made = experts.of_sorted(x[rows.order[:bound] // k], rows.sizes, routed)
    return _weighted(made, jnp.minimum(rows.places, bound - 1), groups < plan.local_experts, chosen)


def _within_capacity(plan: Plan, experts: ExpertFeedForward, chosen: Choice, x: Array) -> Array:
    """The first rows of each expert."""
    rows, groups, k = _sorted(plan, chosen)
    capacity = plan.capacity_of(len(x))
    copies, there = into_buffers(rows, capacity)
    buffers = jnp.where(there[..., None], x[copies // k], 0)
    made = experts.of_buffers(buffers).reshape(-1, x.shape[1])
    return _weighted(made, *slot_of_copy(rows, groups, capacity), chosen)


def _sorted(plan: Plan, chosen: Choice) -> tuple[Rows, Array, int]:
    groups = chosen.experts.reshape(-1)
    return sort_by_group(groups, plan.local_experts), groups, chosen.experts.shape[1]


def _weighted(made: Array, place: Array, kept: Array, chosen: Choice) -> Array:
    """The rows ``made`` at each copy's ``place``, times its weight, added for each token."""
    terms = jnp.where(kept[:, None], made[place] * chosen.weights.reshape(-1, 1), 0)
    return terms.reshape(*chosen.experts.shape, -1).sum(1)
