"""A feed-forward whose gathered weights come around in a loop, block by block, and whose columns never come together.

Each block of the input matrices makes its own block of hidden columns, which waits for its block of the output matrix:
nothing is put in order, and no chip ever holds a whole matrix. Along E, where shards are few, weights are gathered
first. (Pope et al. 2022, section 3.5: loops that circulate weights.)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collective_matmul import MATMUL, arrivals
from engines.transformer.comm.collectives import all_gather, axis_index, product
from engines.transformer.partition.plan import Plan

Block = tuple[int, int]
"""(r, o): of the shard of the chip r places on in the ring, the columns from o on."""
Make = Callable[[list[Array], Block, int], Array]
"""One block of each input product, which block it is and its width → the hidden columns of the block."""


def circulates(plan: Plan) -> bool:
    """Whether a feed-forward's weights come around: they are gathered along its columns, in a looped variant."""
    return plan.apart and plan.collectives != "plain" and bool(plan.gathered_axes[1])


def hidden_blocks(plan: Plan, x: Array, weights: Sequence[Array], make: Make) -> dict[Block, Array]:
    """x: [tokens, E] and input matrices [E.rows, F.columns] → hidden blocks [tokens, width], each as soon as it can."""
    rows, columns = plan.gathered_axes
    rings = [arrivals(plan, all_gather(each, rows, 0), columns, 1) for each in weights]
    blocks = {}
    for parts in zip(*rings, strict=True):
        block = parts[0].block, parts[0].offset
        products = [product(plan, MATMUL, x, part.values) for part in parts]
        # The barrier keeps the activation with the products that it ends, out of those that read it many times.
        blocks[block] = lax.optimization_barrier(make(products, block, products[0].shape[1]))
    return blocks


def output(plan: Plan, blocks: Mapping[Block, Array], w: Array) -> Array:
    """Hidden blocks and the output matrix [F.columns, E.rows] → [tokens, E], float32, unreduced over ``ffn_axes``."""
    rows, columns = plan.gathered_axes
    total: Any = 0
    for part in arrivals(plan, all_gather(w, rows, 1), columns, 0):
        total = total + product(plan, MATMUL, blocks[part.block, part.offset], part.values, jnp.float32)
    summed: Array = total
    return summed


def of_block(plan: Plan, vector: Array, block: Block, width: int) -> Array:
    """The entries of one block, of a vector of all hidden columns that a chip works on."""
    columns = plan.gathered_axes[1]
    shard = vector.size // plan.size(columns)
    turned = jnp.roll(vector.reshape(-1), -axis_index(columns) * shard)
    start = block[0] * shard + block[1]
    return turned[start : start + width]
