"""Jitted programs of a pass whose layers' weights are there one layer at a time: embedding, a layer, output.

They run what :mod:`engines.transformer.programs` runs in one program. A layer's program is the same for all layers of a
kind, so that it is compiled once; the caller brings each layer's weights and its cache.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from engines.core.layer_kind import LayerKind
from engines.transformer.forward import contexts_of, output
from engines.transformer.generate.sampling import next_tokens
from engines.transformer.layers.block import layer
from engines.transformer.layers.embedding import embed
from engines.transformer.layers.kv_cache import Cache, abstract_cache, cache_specs
from engines.transformer.layers.overlapped_block import compiler_options
from engines.transformer.layers.positions import Consecutive
from engines.transformer.options import GREEDY, Sampling
from engines.transformer.params.parameters import abstract_parameters, parameter_specs
from engines.transformer.params.quantize import stream_dtype
from engines.transformer.params.tree import LayerParameters, Parameters, only_layer
from engines.transformer.partition.constraint import residual
from engines.transformer.partition.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPass:
    """The programs of a pass of ``time`` tokens a sequence, of a plan that is ``unrolled``; all are jitted.

    ``embed``: (parameters without layers, tokens [batch, time], position) → x [batch·time, E.residual].
    ``layers``, by kind: (a layer's parameters, its cache, x, position) → (x, cache); x and cache are donated.
    ``output``: (parameters without layers, x, position) → (next token [batch], logits [batch, vocab]).

    ``arguments`` are those of each program as shapes, by the names of :meth:`programs`.
    """

    embed: Any
    layers: Mapping[LayerKind, Any]
    output: Any
    arguments: Mapping[str, tuple[Any, ...]]

    def programs(self) -> Iterator[tuple[str, Any]]:
        """Name → jitted program; layers are numbered by kind, in the order in which the model has them."""
        yield "embed", self.embed
        for number, program in enumerate(self.layers.values()):
            yield f"layer {number}", program
        yield "output", self.output


def make_layer_pass(
    plan: Plan, mesh: Mesh, time: int, limit: int, *, start: int | None = None, sampling: Sampling = GREEDY
) -> LayerPass:
    """The programs of a pass that reads ``limit`` cached positions and begins at ``start``.

    ``start`` None is the argument ``position``, as of a decode step; of a prompt it is 0 and the argument is ignored.
    """
    assert plan.unrolled, "each layer has arrays of its own"
    specs, caches, axes = parameter_specs(plan), cache_specs(plan), plan.axes
    resident = replace(specs, layers=())
    spread = P(*(each or None for each in residual(plan)))
    logits = P(None, axes.all or None)
    whole = P()

    def where(position: Array) -> Consecutive:
        return Consecutive(position if start is None else start)

    def embedded(parameters: Parameters, tokens: Array, position: Array) -> Array:
        return embed(plan, parameters, tokens, where(position))

    def computed(kind: LayerKind) -> Callable[..., tuple[Array, Cache]]:
        def one(parameters: LayerParameters, cache: Cache, x: Array, position: Array) -> tuple[Array, Cache]:
            positions = where(position)
            here = positions.shard(plan, plan.axes.sequence).ids(time)
            context = contexts_of(plan, positions, here, time, limit)[kind]
            return layer(plan, only_layer(parameters), x, cache, context)

        return one

    def finished(parameters: Parameters, x: Array, position: Array) -> tuple[Array, Array]:
        scores = output(plan, parameters, x.reshape(-1, time, x.shape[-1])[:, -1])
        return next_tokens(plan, scores, sampling, where(position).start + time), scores

    first = {stack.kind: number for number, stack in reversed(list(enumerate(plan.stacks)))}
    kinds = dict.fromkeys(stack.kind for stack in plan.stacks)
    cached = abstract_cache(plan, mesh)
    weights = abstract_parameters(plan, mesh)

    def shape(spec: P, dtype: Any, *sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=NamedSharding(mesh, spec))

    x = shape(spread, jnp.dtype(stream_dtype(plan)), plan.batch_size * time, plan.model.d_model)
    position = shape(whole, jnp.int32)
    kept = replace(weights, layers=())
    arguments: dict[str, tuple[Any, ...]] = {
        "embed": (kept, shape(whole, jnp.int32, plan.batch_size, time), position),
        **{
            f"layer {number}": (weights.layers[first[kind]], cached[first[kind]], x, position)
            for number, kind in enumerate(kinds)
        },
        "output": (kept, x, position),
    }

    def jitted(body: Any, inputs: tuple[Any, ...], outputs: Any, **options: Any) -> Any:
        mapped = jax.shard_map(body, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)
        return jax.jit(mapped, compiler_options=compiler_options(plan, mesh) or None, **options)

    def of_kind(kind: LayerKind) -> Any:
        number = first[kind]
        inputs = (specs.layers[number], caches[number], spread, whole)
        # A donated buffer must keep its format: the cache comes out as it went in.
        placed = (NamedSharding(mesh, spread), jax.tree.map(lambda each: each.format, cached[number]))
        outputs = (spread, caches[number])
        return jitted(computed(kind), inputs, outputs, donate_argnums=(1, 2), out_shardings=placed)

    return LayerPass(
        embed=jitted(embedded, (resident, whole, whole), spread),
        layers={kind: of_kind(kind) for kind in kinds},
        output=jitted(finished, (resident, spread, whole), (whole, logits)),
        arguments=arguments,
    )
