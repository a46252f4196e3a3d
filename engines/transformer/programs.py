"""Jitted prefill and decode of a plan on a mesh.

Making the programs, describing their arguments (:func:`abstract_arguments`) and making the arrays
(:func:`load_parameters`, ``make_cache``) are separate, so that a program can be lowered and compiled for devices that
are not present.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from engines.transformer.comm.collectives import local_shard
from engines.transformer.comm.preshuffle import preshuffle
from engines.transformer.forward import forward, hidden_states, output
from engines.transformer.generate.decode_loop import every_step, until_stopped
from engines.transformer.generate.prefill import after_prefix, read_prompt
from engines.transformer.generate.sampling import next_tokens
from engines.transformer.layers.kv_cache import Caches, abstract_cache, cache_specs
from engines.transformer.layers.overlapped_block import compiler_options
from engines.transformer.layers.positions import Consecutive
from engines.transformer.layers.ragged import Ragged
from engines.transformer.options import GREEDY, Sampling
from engines.transformer.params.parameters import abstract_parameters, make_parameters, parameter_specs
from engines.transformer.params.tree import Parameters
from engines.transformer.partition.plan import Plan
from engines.weights.random import Source

KEPT_LOGITS = 4
"""Decode returns the logits of this many last steps (of all, where there are fewer), to be verified."""


def make_prefill(plan: Plan, mesh: Mesh, sampling: Sampling = GREEDY) -> Any:
    """Jitted (parameters, cache, tokens [batch, time]) → (next token [batch], logits [batch, vocab], cache).

    The cache is donated. Tokens are written to its first positions; ``plan.prefill`` says how the prompt is computed.
    """

    view, prefix = program_view(plan, mesh), plan.prefill.prefix

    def prefill(parameters: Parameters, cache: Caches, tokens: Array) -> tuple[Array, Array, Caches]:
        scores, cache = read_prompt(view, parameters, cache, tokens)
        return next_tokens(view, scores, sampling, prefix + tokens.shape[1]), scores, cache

    outputs = (P(), logits_spec(plan, 0), cache_specs(plan))
    made = partitioned(plan, mesh, prefill, (P(),), outputs)
    return after_prefix(plan, mesh, made) if prefix else made


def make_ragged_prefill(plan: Plan, mesh: Mesh, limit: int, sampling: Sampling = GREEDY, packing: Any = ()) -> Any:
    """Jitted prefill of prompts of up to ``limit`` tokens: (parameters, cache, tokens, last) → as prefill.

    ``last``: [batch], the index of each prompt's last token in its row. Tokens are [batch, limit], padded at the end,
    and ``packing`` is (); or they are packed rows, and ``packing`` is their
    :class:`engines.transformer.layers.packing.Packed`, a constant of the program, whose loops then skip what no
    token sees.
    """
    view = program_view(plan, mesh)

    def prefill(parameters: Parameters, cache: Caches, tokens: Array, last: Array) -> tuple[Array, Array, Caches]:
        x, cache = hidden_states(view, parameters, cache, tokens, packing or Consecutive(0), limit=limit)
        mine = local_shard(last, view.axes.batch, 0, view.axes.size(view.axes.batch))
        ends = x[jnp.arange(mine.size) // (mine.size // x.shape[0]), mine]
        scores = output(view, parameters, ends)
        return next_tokens(view, scores, sampling, limit), scores, cache

    outputs = (P(), logits_spec(plan, 0), cache_specs(plan))
    return partitioned(plan, mesh, prefill, (P(), P()), outputs)


def make_decode(plan: Plan, mesh: Mesh, steps: int, sampling: Sampling = GREEDY) -> Any:
    """Jitted (parameters, cache, token [batch], position) → (tokens [steps, batch], logits, cache).

    ``position`` is that of all sequences, or each one's own: :class:`engines.transformer.layers.ragged.Ragged`.

    Logits are [kept, batch, vocab]: those of the last :data:`KEPT_LOGITS` steps. With a stop token a fourth output is
    the number of steps that ran, and the tokens of the other steps are the stop token.

    ``steps`` forward passes of one token run in one compiled loop, without returning to the host. The first reads
    ``token`` and writes it to the cache at ``position``. The cache is donated; a second run from the same token and
    position overwrites what this run wrote before it reads it, so the cache needs no reset.
    """
    view, kept, stop_token = program_view(plan, mesh), min(steps, KEPT_LOGITS), sampling.stop_token

    def decode(parameters: Parameters, cache: Caches, token: Array, position: Any) -> tuple[Any, ...]:
        one = not isinstance(position, Ragged)
        last_drawn = position if one else plan.cache_len - steps
        last = jnp.zeros((kept, plan.batch_size, plan.padded.vocab // plan.axes.size(view.axes.all)), jnp.float32)

        def step(cache: Caches, token: Array, number: Array) -> tuple[Caches, Array, Array]:
            here = Consecutive(position + number) if one else position.later(number)
            scores, cache = forward(view, parameters, cache, token[:, None], here, limit=plan.cache_len)
            return cache, scores, next_tokens(view, scores, sampling, last_drawn + number + 1)

        if stop_token is None:
            return every_step(step, cache, token, last, steps)
        return until_stopped(step, cache, token, last, steps, stop_token)

    outputs = (P(), logits_spec(plan, 1), cache_specs(plan), *([] if stop_token is None else [P()]))
    return partitioned(plan, mesh, decode, (P(), P()), outputs)


def load_parameters(plan: Plan, mesh: Mesh, source: Source) -> Parameters:
    """The parameters on the mesh's devices, in the order in which this plan's programs read them."""
    return preshuffle(plan, mesh, make_parameters(plan, mesh, source))


def abstract_arguments(plan: Plan, mesh: Mesh, input_len: int) -> dict[str, tuple[Any, ...]]:
    """Arguments of ``prefill`` and ``decode`` as shapes, to lower for any mesh, devices present or not."""
    whole, batch = NamedSharding(mesh, P()), plan.batch_size * plan.micro_batches
    state = (abstract_parameters(plan, mesh), abstract_cache(plan, mesh))

    def ids(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=whole)

    return {
        "prefill": (*state, ids(batch, input_len)),
        "decode": (*state, ids(batch), ids()),
    }


def partitioned(plan: Plan, mesh: Mesh, body: Callable[..., Any], inputs: tuple[P, ...], outputs: Any) -> Any:
    """``body`` (parameters, cache, further ``inputs``) jitted over the mesh; its third output is the cache, donated."""
    if plan.partitioner == "gspmd":
        placed = jax.tree.map(lambda spec: NamedSharding(mesh, spec), outputs)
        return jax.jit(body, out_shardings=placed, donate_argnums=1)
    specs = (parameter_specs(plan), cache_specs(plan), *inputs)
    mapped = jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=outputs, check_vma=False)
    # A donated buffer must keep its format: the cache comes out as it went in.
    kept = jax.tree.map(lambda each: each.format, abstract_cache(plan, mesh))
    placed = (None, None, kept, *(None for _ in outputs[3:]))
    options = compiler_options(plan, mesh) or None
    return jax.jit(mapped, donate_argnums=1, out_shardings=placed, compiler_options=options)


def program_view(plan: Plan, mesh: Mesh) -> Plan:
    """The plan that the program follows: itself, or its global view where the compiler partitions."""
    return plan.global_view(mesh) if plan.partitioner == "gspmd" else plan


def logits_spec(plan: Plan, leading: int) -> P:
    """The PartitionSpec of logits with ``leading`` dimensions before [batch, vocab]."""
    return P(*[None] * (leading + 1), plan.axes.all or None)
