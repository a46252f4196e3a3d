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
from engines.transformer.forward import contexts_of
from engines.transformer.layers.block import layer
from engines.transformer.layers.embedding import embed
from engines.transformer.layers.kv_cache import Cache, abstract_cache, cache_specs
from engines.transformer.layers.overlapped_block import compiler_options
from engines.transformer.layers.positions import Positions
from engines.transformer.params.parameters import abstract_parameters, parameter_specs
from engines.transformer.params.quantize import stream_dtype
from engines.transformer.params.tree import LayerParameters, Parameters, only_layer
from engines.transformer.partition.constraint import residual
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import program_view


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a pass by ``plan`` reads and makes: ``rows`` of ``time`` tokens that see ``limit`` positions.

    ``positions`` makes the tokens' positions of the argument ``where``, and ``finish`` what the pass returns of (the
    plan that the program follows, the parameters without layers, the last layer's output [rows, time, E.residual], the
    argument ``asked``); both run where the layers do, inside ``shard_map`` unless the compiler partitions. ``where``
    and ``asked`` are pytrees of shapes, ``asked_specs`` and ``outputs`` the PartitionSpecs of what is asked and
    returned; ``where`` is whole on every chip.
    """

    plan: Plan
    rows: int
    time: int
    limit: int
    positions: Callable[[Any], Positions]
    where: Any
    finish: Callable[[Plan, Parameters, Array, Any], Any]
    asked: Any
    asked_specs: Any
    outputs: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPass:
    """The programs of a :class:`Reading` by a plan that is ``unrolled``; all are jitted.

    ``embed``: (parameters without layers, tokens [rows, time], where) → x [rows·time, E.residual].
    ``layers``, by kind: (a layer's parameters, its cache, x, where) → (x, cache); x and cache are donated.
    ``output``: (parameters without layers, x, asked) → what the reading returns.

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


def make_layer_pass(stored: Plan, mesh: Mesh, reading: Reading) -> LayerPass:
    """The programs of a pass over parameters that lie as the plan ``stored`` places them.

    Where the compiler partitions it gets a layer at a time: the residual stream between two is placed as the plan says.
    """
    plan = reading.plan
    assert plan.unrolled, "each layer has arrays of its own"
    view = program_view(plan, mesh)
    specs, caches = parameter_specs(plan), cache_specs(plan)
    resident = replace(specs, layers=())
    spread = P(*(each or None for each in residual(plan)))
    whole, time = P(), reading.time
    where_specs = jax.tree.map(lambda _: whole, reading.where)

    def embedded(parameters: Parameters, tokens: Array, where: Any) -> Array:
        return embed(view, parameters, tokens, reading.positions(where))

    def computed(kind: LayerKind) -> Callable[..., tuple[Array, Cache]]:
        def one(parameters: LayerParameters, cache: Cache, x: Array, where: Any) -> tuple[Array, Cache]:
            positions = reading.positions(where)
            here = positions.shard(view, view.axes.sequence).ids(time)
            context = contexts_of(view, positions, here, time, reading.limit)[kind]
            return layer(view, only_layer(parameters), x, cache, context)

        return one

    def finished(parameters: Parameters, x: Array, asked: Any) -> Any:
        return reading.finish(view, parameters, x.reshape(-1, time, x.shape[-1]), asked)

    first = {stack.kind: number for number, stack in reversed(list(enumerate(plan.stacks)))}
    kinds = dict.fromkeys(stack.kind for stack in plan.stacks)
    cached = abstract_cache(plan, mesh)
    weights = abstract_parameters(stored, mesh)

    def shape(spec: P, each: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=NamedSharding(mesh, spec))

    tokens = reading.rows * time
    stream = jax.ShapeDtypeStruct((tokens, plan.model.d_model), jnp.dtype(stream_dtype(plan)))
    x, ids = shape(spread, stream), jax.ShapeDtypeStruct((reading.rows, time), jnp.int32)
    where = jax.tree.map(lambda each: shape(whole, each), reading.where)
    kept = replace(weights, layers=())
    arguments: dict[str, tuple[Any, ...]] = {
        "embed": (kept, shape(whole, ids), where),
        **{
            f"layer {number}": (weights.layers[first[kind]], cached[first[kind]], x, where)
            for number, kind in enumerate(kinds)
        },
        "output": (kept, x, jax.tree.map(shape, reading.asked_specs, reading.asked)),
    }

    def jitted(body: Any, inputs: tuple[Any, ...], outputs: Any, **options: Any) -> Any:
        if plan.partitioner == "gspmd":
            placed = jax.tree.map(lambda spec: NamedSharding(mesh, spec), outputs)
            return jax.jit(body, **{"out_shardings": placed, **options})
        mapped = jax.shard_map(body, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)
        return jax.jit(mapped, compiler_options=compiler_options(plan, mesh) or None, **options)

    def of_kind(kind: LayerKind) -> Any:
        number = first[kind]
        inputs = (specs.layers[number], caches[number], spread, where_specs)
        # A donated buffer must keep its format: the cache comes out as it went in.
        placed = (NamedSharding(mesh, spread), jax.tree.map(lambda each: each.format, cached[number]))
        outputs = (spread, caches[number])
        return jitted(computed(kind), inputs, outputs, donate_argnums=(1, 2), out_shardings=placed)

    return LayerPass(
        embed=jitted(embedded, (resident, whole, where_specs), spread),
        layers={kind: of_kind(kind) for kind in kinds},
        output=jitted(finished, (resident, spread, reading.asked_specs), reading.outputs),
        arguments=arguments,
    )
