"""The feed-forward: its activation, and its matmuls in the plan's overlap strategy.

Where gathered weights circulate in a ring, each block of the input matrices computes its own block of hidden columns,
which is kept until its block of the output matrix arrives: blocks are not reordered, and no chip ever holds a whole
matrix. Along E, where there are few shards, weights are gathered first. (Pope et al. 2022, section 3.5: loops that
circulate weights.)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.core.feed_forward import Activation
from engines.transformer.comm.collective_matmul import MATMUL
from engines.transformer.comm.collectives import all_gather, axis_index
from engines.transformer.comm.ring import ring_of
from engines.transformer.layers.projections import column_vectors, local_columns, project_in, project_out, reduced
from engines.transformer.params.fusion import matmul_widths
from engines.transformer.params.grouped import Weights
from engines.transformer.params.quantize import einsum
from engines.transformer.params.tree import Projection
from engines.transformer.partition.plan import Plan

CLAMP: Final = 7.0
CLAMPED_SLOPE: Final = 1.702
"""Of clamped SwiGLU: the bound of its inputs, and the slope of its sigmoid."""

Block = tuple[int, int]
"""(r, o): columns from o on of the shard of the chip r positions ahead in the ring."""
Make = Callable[[list[Array], Block, int], Array]
"""(one block of each input matmul, which block it is, its width) → the hidden columns of the block."""


def feed_forward(plan: Plan, w: Projection, x: Array) -> Array:
    """x: [tokens, E.residual] → the same, of a feed-forward with a projection of its own."""
    if plan.circulates_ffn:
        return reduced(plan, w.outputs, ring_of_weights(plan, w, x), x.dtype)
    return project_out(plan, w.outputs, [activate(plan, project_in(plan, w.inputs, x))])


def activate(plan: Plan, inputs: list[Array]) -> Array:
    """Hidden columns of one input, or of gate and up (:class:`engines.core.feed_forward.FeedForward`); in float32."""
    first = inputs[0].astype(jnp.float32)
    if plan.model.ffn.gated:
        hidden = _gated(plan.model.activation, first, inputs[1])
    elif plan.model.activation == "relu":
        hidden = jnp.maximum(first, 0)
    else:
        hidden = jax.nn.gelu(first, approximate=plan.model.ffn.activation == "gelu_tanh")
    return hidden.astype(inputs[0].dtype)


def _gated(activation: Activation, gate: Array, up: Array) -> Array:
    """Exponentials are in base 2, as in hardware."""
    if activation == "geglu":
        return jax.nn.gelu(gate, approximate=True) * up.astype(jnp.float32)
    if activation == "swiglu_clamped":
        gate, up = jnp.minimum(gate, CLAMP), jnp.clip(up.astype(jnp.float32), -CLAMP, CLAMP)
        return gate / (1 + jnp.exp2(-CLAMPED_SLOPE * math.log2(math.e) * gate)) * (up + 1)
    return gate / (1 + jnp.exp2(-math.log2(math.e) * gate)) * up.astype(jnp.float32)


def ring_of_weights(plan: Plan, w: Projection, x: Array) -> Array:
    """x: [tokens, E.residual] → [tokens, E], float32, unreduced over ffn: weights circulate, block by block.

    ``w`` may be fused with attention: the feed-forward's tensors are its last.
    """
    widths = matmul_widths(plan, w.inputs.parts)
    cuts = list(pairwise(accumulate(widths, initial=0)))[-len(plan.model.ffn.inputs) :]
    vectors = [(local_columns(plan, vector), combine) for vector, combine in column_vectors(w.inputs)]

    def make(products: list[Array], block: Block, width: int) -> Array:
        for whole, combine in vectors:
            own_parts = [_of_block(plan, whole[:, start:stop], block, width) for start, stop in cuts]
            products = [combine(each, part).astype(x.dtype) for each, part in zip(products, own_parts, strict=True)]
        return activate(plan, products)

    inward = [w.inputs.values.slice_chunks(1, sum(widths), *cut).whole() for cut in cuts]
    blocks = _hidden_blocks(plan, lax.optimization_barrier(all_gather(x, plan.axes.ffn, 1)), inward, make)
    width, chunk = w.outputs.parts[-1][1], w.outputs.chunk_width
    return _output(plan, blocks, w.outputs.values.slice_chunks(0, chunk, chunk - width, chunk).whole())


def _hidden_blocks(plan: Plan, x: Array, weights: Sequence[Weights], make: Make) -> dict[Block, Array]:
    """x: [tokens, E] and input matrices [E.rows, F.columns] → hidden blocks [tokens, width], as weights arrive."""
    rows, columns = plan.axes.gathered
    rings = [ring_of(plan).all_gather(plan, all_gather(each, rows, 0), columns, 1) for each in weights]
    blocks = {}
    for parts in zip(*rings, strict=True):
        block = parts[0].block, parts[0].offset
        products = [einsum(plan, MATMUL, x, part.values) for part in parts]
        # The barrier keeps the activation out of the output matmul, which would recompute it for each tile.
        blocks[block] = lax.optimization_barrier(make(products, block, products[0].shape[1]))
    return blocks


def _output(plan: Plan, blocks: Mapping[Block, Array], w: Weights) -> Array:
    """Hidden blocks and the output matrix [F.columns, E.rows] → [tokens, E], float32, unreduced over ffn."""
    rows, columns = plan.axes.gathered
    total: Any = 0
    for part in ring_of(plan).all_gather(plan, all_gather(w, rows, 1), columns, 0):
        total = total + einsum(plan, MATMUL, blocks[part.block, part.offset], part.values, jnp.float32)
    summed: Array = total
    return summed


def _of_block(plan: Plan, vector: Array, block: Block, width: int) -> Array:
    """The entries of one block of a vector of all hidden columns that a chip computes."""
    columns = plan.axes.gathered[1]
    shard = vector.size // plan.axes.size(columns)
    turned = jnp.roll(vector.reshape(-1), -axis_index(columns) * shard)
    start = block[0] * shard + block[1]
    return turned[start : start + width]
