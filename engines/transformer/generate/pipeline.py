"""Prefill and decode through pipeline stages: layers split evenly over a mesh axis, the batch in micro-batches.

Stage s, along the mesh axis ``stage``, has layers [s·L/p, (s + 1)·L/p) and, within them, the plan's tensor parallelism
over x, y and z. In turn t it runs item t − s, a micro-batch of a prompt or of a step, and hands what comes out to the
next stage by a collective-permute; a stage that has no item waits (GPipe, Huang et al. 2019, arXiv 1811.06965: p − 1
turns are a bubble). Steps follow each other without a bubble where there are as many micro-batches as stages, since a
token comes back to the first stage just in time. Tables and final norm are on every stage; the first uses the one, the
last the other.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from engines.transformer.forward import output
from engines.transformer.generate.sampling import next_tokens
from engines.transformer.layers.attention import LayerContext
from engines.transformer.layers.block import layer
from engines.transformer.layers.embedding import embed
from engines.transformer.layers.kv_cache import Caches, cache_specs
from engines.transformer.layers.positions import Consecutive
from engines.transformer.layers.rope import rope_angles
from engines.transformer.options import GREEDY
from engines.transformer.params.tree import Parameters, layer_parameters, scan_inputs
from engines.transformer.partition.plan import STAGE, Plan
from engines.transformer.programs import KEPT_LOGITS, logits_spec, partitioned


def make_pipelined_prefill(plan: Plan, mesh: Mesh) -> Any:
    """Jitted as :func:`engines.transformer.programs.make_prefill`, greedy; the batch is that of all micro-batches."""
    stage = _Stage(plan)

    def prefill(parameters: Parameters, cache: Caches, tokens: Array) -> tuple[Array, Array, Caches]:
        time, count, here = tokens.shape[1], plan.micro_batches, Consecutive(0)
        parts = tokens.reshape(count, plan.batch_size, time)
        empty = jnp.zeros_like(embed(stage.plan, parameters, parts[0], here))
        ends = jnp.zeros((count, plan.batch_size, empty.shape[-1]), empty.dtype)

        def turn(carry: tuple[Array, Caches, Array], number: Array) -> tuple[tuple[Array, Caches, Array], None]:
            item = number - lax.axis_index(STAGE)
            part = item.clip(0, count - 1)

            def run(x: Array, cache: Caches, ends: Array) -> tuple[Array, Caches, Array]:
                x = stage.if_first(lambda: embed(stage.plan, parameters, parts[part], here), lambda: x)
                x, cache = stage.layers(parameters, cache, x, here, part, limit=time, time=time)
                last = x.reshape(plan.batch_size, time, -1)[:, -1]
                return x, cache, lax.dynamic_update_slice(ends, last[None], (part, 0, 0))

            x, cache, ends = lax.cond((item >= 0) & (item < count), run, _as_it_is, *carry)
            return (stage.to_next(x), cache, ends), None

        (_, cache, ends), _ = lax.scan(turn, (empty, cache, ends), jnp.arange(count + plan.stages - 1))
        whole = ends.reshape(-1, ends.shape[-1])
        blank = jnp.zeros((whole.shape[0], stage.vocab), jnp.float32)
        scores = stage.of_last(lambda: output(stage.plan, parameters, whole), lambda: blank)
        return next_tokens(stage.plan, scores, GREEDY, time), scores, cache

    return partitioned(plan, mesh, prefill, (P(),), (P(), logits_spec(plan, 0), cache_specs(plan)))


def make_pipelined_decode(plan: Plan, mesh: Mesh, steps: int) -> Any:
    """Jitted as :func:`engines.transformer.programs.make_decode`, greedy, without a stop token."""
    stage, count, size = _Stage(plan), plan.micro_batches, plan.batch_size
    kept, period = min(steps, KEPT_LOGITS), max(count, plan.stages)

    def decode(parameters: Parameters, cache: Caches, token: Array, position: Array) -> tuple[Array, Array, Caches]:
        tokens = token.reshape(count, size)
        empty = jnp.zeros_like(embed(stage.plan, parameters, tokens[0][:, None], Consecutive(position)))
        made, scores = jnp.zeros((steps, count, size), token.dtype), jnp.zeros((kept, count, size, stage.vocab))

        def turn(carry: Any, number: Array) -> tuple[Any, None]:
            tokens, x, cache, made, scores = carry
            item = number - lax.axis_index(STAGE)
            step, part = item // period, item % period
            here = Consecutive(position + step)

            def run(x: Array, cache: Caches, made: Array, scores: Array) -> tuple[Array, Caches, Array, Array]:
                x = stage.if_first(lambda: embed(stage.plan, parameters, tokens[part][:, None], here), lambda: x)
                x, cache = stage.layers(parameters, cache, x, here, part, limit=plan.cache_len, time=1)

                def finish() -> tuple[Array, Array]:
                    found = output(stage.plan, parameters, x)
                    chosen = next_tokens(stage.plan, found, GREEDY, 0)
                    place = jnp.maximum(step - (steps - kept), 0)
                    return (
                        lax.dynamic_update_slice(made, chosen[None, None], (step, part, 0)),
                        lax.dynamic_update_slice(scores, found[None, None], (place, part, 0, 0)),
                    )

                return x, cache, *stage.if_last(finish, lambda: (made, scores))

            active = (item >= 0) & (item < steps * period) & (part < count)
            x, cache, made, scores = lax.cond(active, run, _as_it_is, x, cache, made, scores)
            done = number - (plan.stages - 1)
            back, at = done % period, (done // period).clip(0, steps - 1)
            chosen = lax.ppermute(made[at, back.clip(0, count - 1)], STAGE, [(plan.stages - 1, 0)])
            arrived = lax.dynamic_update_slice(tokens, chosen[None], (back.clip(0, count - 1), 0))
            tokens = jnp.where((done >= 0) & (back < count), arrived, tokens)
            return (tokens, stage.to_next(x), cache, made, scores), None

        turns = jnp.arange(steps * period + plan.stages - 1)
        (_, _, cache, made, scores), _ = lax.scan(turn, (tokens, empty, cache, made, scores), turns)
        made, scores = (stage.from_last(each) for each in (made, scores))
        return made.reshape(steps, -1), scores.reshape(kept, count * size, -1), cache

    return partitioned(plan, mesh, decode, (P(), P()), (P(), logits_spec(plan, 1), cache_specs(plan)))


class _Stage:
    """What a stage runs, inside ``shard_map``."""

    def __init__(self, plan: Plan) -> None:
        model = plan.model
        own = replace(model, num_layers=model.num_layers // plan.stages)
        self.plan: Final = replace(plan, model=own, stages=1, micro_batches=1)
        self.stages, self.vocab = plan.stages, plan.padded.vocab // plan.axes.size(plan.axes.all)

    def layers(
        self, parameters: Parameters, cache: Caches, x: Array, here: Consecutive, part: Array, *, limit: int, time: int
    ) -> tuple[Array, Caches]:
        """x through this stage's layers; the cache's entries of a micro-batch ``part`` lie one after another."""
        plan, ((stack,),) = self.plan, self.plan.loops
        angles = rope_angles(plan.model, here.ids(time), stack.kind, plan.text_len)
        context = LayerContext(stack.kind, 0, here, limit, time, angles)
        (matrices,), count = parameters.layers, len(stack.numbers)

        def step(carry: tuple[Array, Any], each: tuple[Any, Any]) -> tuple[tuple[Array, Any], None]:
            (x, cache), (number, vectors) = carry, each
            one = layer_parameters(vectors, matrices, number)
            return layer(plan, one, x, cache, context._replace(layer=part * count + number)), None

        (x, kept), _ = lax.scan(step, (x, cache[0]), (jnp.arange(count), scan_inputs(matrices)))
        return x, (kept,)

    def if_first(self, run: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        """``run`` on the first stage."""
        return lax.cond(lax.axis_index(STAGE) == 0, run, otherwise)

    def if_last(self, run: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        """``run`` on the last stage."""
        return lax.cond(lax.axis_index(STAGE) == self.stages - 1, run, otherwise)

    def of_last(self, run: Callable[[], Array], zeros: Callable[[], Array]) -> Array:
        """What ``run`` gives on the last stage, on all of them."""
        found: Array = lax.psum(self.if_last(run, zeros), STAGE)
        return found

    def from_last(self, x: Array) -> Array:
        """x of the last stage, on all of them."""
        return self.of_last(lambda: x, lambda: jnp.zeros_like(x))

    def to_next(self, x: Array) -> Array:
        """x of the stage before."""
        sent: Array = lax.ppermute(x, STAGE, [(each, each + 1) for each in range(self.stages - 1)])
        return sent


def _as_it_is(*carried: Any) -> Any:
    return carried
