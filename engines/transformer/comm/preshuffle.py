"""Reorders stationary weights at load into the order in which a ring of activations reads them."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from engines.transformer.comm.collective_matmul import Matmul, matmul_in, matmul_out
from engines.transformer.comm.collectives import axis_index
from engines.transformer.comm.ring import ring_axes
from engines.transformer.params.parameters import parameter_specs
from engines.transformer.params.tree import LayerParameters, Parameters, Projection
from engines.transformer.partition.overlap import Overlap
from engines.transformer.partition.plan import Plan

Layers = tuple[LayerParameters, ...]


def preshuffle(plan: Plan, mesh: Mesh, parameters: Parameters) -> Parameters:
    """Roll each layer's matrices on their chips, so that ring step r reads block r of a matrix. Donates them.

    Every block is then a static slice. Only the ring of activations needs this; other strategies return ``parameters``.
    """
    layers = preshuffle_layers(plan, mesh, parameters.layers, parameter_specs(plan).layers)
    return replace(parameters, layers=layers)


def preshuffle_layers(plan: Plan, mesh: Mesh, layers: Layers, specs: Layers) -> Layers:
    """:func:`preshuffle` of some layers, whose arrays are split as ``specs`` says."""
    if plan.overlap is not Overlap.RING_OF_ACTIVATIONS:
        return layers

    def rolled(stack: Array, matmul: Matmul) -> Array:
        # Of a matrix in groups these are its rows, a ring's shares being whole ones.
        for axes, dim in ((ring_axes(matmul.gathered), 1), (ring_axes(matmul.scattered), stack.ndim - 1)):
            size = stack.shape[dim] // plan.axes.size(axes)
            stack = jnp.roll(stack, -axis_index(axes) * size, dim)
        return stack

    def of_matrix(stack: Any, matmul: Matmul) -> Any:
        return jax.tree.map(partial(rolled, matmul=matmul), stack)

    def of(node: Any) -> Any:
        if not isinstance(node, Projection):
            return node
        sides = ((node.inputs, matmul_in(plan)), (node.outputs, matmul_out(plan)))
        return Projection(*(each and replace(each, values=of_matrix(each.values, matmul)) for each, matmul in sides))

    def roll(whole: Layers) -> Layers:
        moved: Layers = jax.tree.map(of, whole, is_leaf=lambda node: isinstance(node, Projection))
        return moved

    mapped = jax.shard_map(roll, mesh=mesh, in_specs=(specs,), out_specs=specs, check_vma=False)
    done: Layers = jax.jit(mapped, donate_argnums=0)(layers)
    return done
