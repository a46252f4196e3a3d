"""The first layers of a model as a model of its own, on the same arrays."""

from dataclasses import replace

import jax

from engines.core.errors import Unsupported
from engines.transformer.layers.kv_cache import Caches
from engines.transformer.params.tree import LayerParameters, Parameters, map_matrices
from engines.transformer.partition.plan import Plan
from engines.transformer.partition.stacks import Stack


def first_layers(plan: Plan, count: int) -> Plan:
    """The plan of the model's first ``count`` layers, with its own embedding, final norm and output matrix.

    Raises:
        Unsupported: those layers do not lie in the first of the model's stacks, in their order.
    """
    shallow = replace(plan, model=replace(plan.model, num_layers=count))
    if not all(map(_begins, shallow.stacks, plan.stacks)) or len(shallow.stacks) > len(plan.stacks):
        raise Unsupported(
            f"draft_layers={count}: model={plan.model.name} has layers of several kinds, which are stacked in another "
            "order in so few; use whole periods of its kinds, or engine.unroll_layers=true"
        )
    return shallow


def _begins(few: Stack, all_: Stack) -> bool:
    """Whether ``few`` are the first layers of a stack."""
    return few.kind == all_.kind and list(few.numbers) == list(all_.numbers)[: len(few.numbers)]


def first_parameters(shallow: Plan, parameters: Parameters) -> Parameters:
    """The parameters that :func:`first_layers` read: matrices as they are, vectors those of the first layers."""
    kept = zip(shallow.stacks, parameters.layers, strict=False)
    return replace(parameters, layers=tuple(_first(layers, len(stack.numbers)) for stack, layers in kept))


def _first(layers: LayerParameters, count: int) -> LayerParameters:
    """Matrices are read where they lie; a loop over layers takes all of the others."""
    vectors = jax.tree.map(lambda each: each[:count], map_matrices(lambda each: replace(each, values=None), layers))
    both: LayerParameters = map_matrices(lambda mine, all_: replace(mine, values=all_.values), vectors, layers)
    return both


def with_first(shallow: Plan, cache: Caches, written: Caches) -> Caches:
    """The cache of all layers, of which the first stacks were written."""
    return (*written, *cache[len(shallow.stacks) :])
