"""Prefill: the whole prompt at once, in chunks, or after a prefix that all sequences share."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from engines.core.errors import InvalidRequest
from engines.core.layout import stationary
from engines.transformer.forward import hidden_states, output
from engines.transformer.layers.kv_cache import PREFIX, Cache, Caches, abstract_cache, cache_specs
from engines.transformer.layers.positions import Consecutive
from engines.transformer.params.parameters import parameter_specs
from engines.transformer.params.tree import Parameters
from engines.transformer.partition.kv_heads import kv_slots
from engines.transformer.partition.plan import Plan


def read_prompt(plan: Plan, parameters: Parameters, cache: Caches, tokens: Array) -> tuple[Array, Caches]:
    """Logits [batch, vocab.all] of the last of ``tokens`` [batch, time], and the cache with all of them.

    Inside ``shard_map``. Tokens are written after the shared prefix, which the cache already holds.

    Raises:
        InvalidRequest: the prompt is longer than the cache.
    """
    x, cache = _in_chunks(plan, parameters, cache, tokens)
    return output(plan, parameters, x), cache


def _in_chunks(plan: Plan, parameters: Parameters, cache: Caches, tokens: Array) -> tuple[Array, Caches]:
    """The last layer's output for the last token, [batch.batch, E.residual], and the cache.

    The remainder of the division into chunks goes first: the full chunks are then one loop, which ends with the result.
    """
    start, time, chunk = plan.prefill.prefix, tokens.shape[1], plan.prefill.chunk
    if start + time > plan.cache_len:
        raise InvalidRequest("input_len", start + time, f"must be ≤ cache_len={plan.cache_len}", "use a longer cache")
    if chunk is None or chunk >= time:
        x, cache = hidden_states(plan, parameters, cache, tokens, Consecutive(start), limit=time)
        return x[:, -1], cache
    count, rest = divmod(time, chunk)
    shared = plan.axes.size(plan.axes.positions)
    if rest % shared:
        raise InvalidRequest(
            "engine.prefill_chunk",
            chunk,
            f"leaves {rest} of {time} tokens, which is no multiple of the {shared} chips that share their positions",
            f"use prompts of a multiple of {shared} tokens, or leave it out",
        )
    if rest:
        _, cache = hidden_states(plan, parameters, cache, tokens[:, :rest], Consecutive(start), limit=rest)

    def step(cache: Caches, each: tuple[Array, Array]) -> tuple[Caches, Array]:
        number, some = each
        here = Consecutive(start + rest + number * chunk)
        x, cache = hidden_states(plan, parameters, cache, some, here, limit=time)
        return cache, x[:, -1]

    chunks = tokens[:, rest:].reshape(-1, count, chunk).swapaxes(0, 1)
    cache, last = lax.scan(step, cache, (jnp.arange(count), chunks))
    return last[-1], cache


def prefix_plan(plan: Plan) -> Plan:
    """The plan for the prefix of ``plan``'s prompts: a batch of one sequence, on the same stored weights.

    Gathered layouts split the batch, which one sequence has none of: it goes by the stationary layout of the same
    weights.
    """
    # Its weights are those of ``plan``: a whole residual over heads would copy key/value columns.
    plainly = bool(plan.axes.batch) or (plan.axes.whole_residual and plan.padded.kv_copies == 1)
    return replace(
        plan,
        batch_size=1,
        cache_len=plan.prefill.prefix,
        longest_text=plan.text_len,
        attn_sharding="heads",
        ffn_layout=stationary(plan.axes.layout).name,
        collectives="plain" if plainly else plan.collectives,
        prefill=replace(plan.prefill, prefix=0),
    )


def after_prefix(plan: Plan, mesh: Mesh, rest: Any) -> Any:
    """``rest`` (parameters, cache, tokens), which takes tokens after the prefix → the same for whole prompts, jitted.

    The prefix of the first prompt is computed once, and its keys and values are sent to every chip that needs them.
    """
    prefix, read, shared = plan.prefill.prefix, _prefix_prefill(prefix_plan(plan), mesh), prefix_sharing(plan, mesh)

    def both(parameters: Parameters, cache: Caches, tokens: Array) -> Any:
        filled = read(parameters, tokens[:1, :prefix])
        kept = tuple(shared(*each) for each in zip(cache, filled, strict=True))
        return rest(parameters, kept, tokens[:, prefix:])

    return jax.jit(both, donate_argnums=1)


def prefix_sharing(plan: Plan, mesh: Mesh) -> Callable[[Cache, Cache], Cache]:
    """A function (a stack's cache, that of :func:`prefix_plan`'s sequence) → the former, with the latter as prefix."""
    specs, slots = cache_specs(plan)[0], _source_slots(plan, prefix_plan(plan))

    def shared(cache: Cache, filled: Cache) -> Cache:
        kept = dict(cache)
        for name, each in filled.items():
            by_slot = each.reshape(each.shape[0], 1, -1, *each.shape[3:])
            moved = by_slot if slots is None else jnp.take(by_slot, jnp.asarray(slots), axis=2)
            placed = NamedSharding(mesh, specs[f"{PREFIX}{name}"])
            kept[f"{PREFIX}{name}"] = lax.with_sharding_constraint(moved, placed)
        return kept

    return shared


def _prefix_prefill(plan: Plan, mesh: Mesh) -> Callable[[Parameters, Array], Caches]:
    """A function (parameters, tokens) → the cache of their keys and values."""
    gspmd = plan.partitioner == "gspmd"
    view = plan.global_view(mesh) if gspmd else plan
    empty = abstract_cache(plan, mesh)

    def zeros(each: Any) -> Array:
        return jnp.zeros(each.shape if gspmd else each.sharding.shard_shape(each.shape), each.dtype)

    def read(parameters: Parameters, tokens: Array) -> Caches:
        cache: Caches = jax.tree.map(zeros, empty)
        return _in_chunks(view, parameters, cache, tokens)[1]

    if gspmd:
        return read
    mapped: Callable[[Parameters, Array], Caches] = jax.shard_map(
        read, mesh=mesh, in_specs=(parameter_specs(plan), P()), out_specs=cache_specs(plan), check_vma=False
    )
    return mapped


def _source_slots(plan: Plan, single: Plan) -> list[int] | None:
    """For each slot of ``plan``'s cache, chip by chip, the slot of ``single``'s cache that holds the same head.

    None where the compiler partitions: global arrays hold each head once.
    """
    if plan.partitioner == "gspmd":
        return None
    held = [head for kept in kv_slots(single)[0] for head in kept]
    return [held.index(head) for kept in kv_slots(plan)[0] for head in kept]
