"""A TPU's own attention kernel for whole prompts: splash attention, from JAX's Pallas kernels.

It is compiled ahead of time for TPUs here, and its arithmetic is checked by Pallas's interpreter; no TPU has timed it.
"""

import math
from typing import Final

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from engines.transformer.layers.mask import Mask

MOST: Final = 1024
"""Queries and keys of one block at most: what fits beside its scores on the chip."""


def kernel_attend(q: Array, keys: Array, vals: Array, mask: Mask, *, interpret: bool = False) -> Array:
    """q: [batch, time, heads, dim], keys and vals: [batch, slots, time, dim] → [batch, time, heads, dim].

    ``mask`` is that of a whole prompt. ``time`` is a multiple of 128. Queries hold the factor for powers of 2; the
    kernel takes powers of e.
    """
    batch, time, heads, dim = q.shape
    slots = keys.shape[1]
    scaled = (q.astype(jnp.float32) * math.log(2)).astype(q.dtype)
    grouped = scaled.reshape(batch, time, slots, heads // slots, dim).transpose(0, 2, 3, 1, 4)
    block = math.gcd(time, MOST)
    kernel = splash.make_splash_mqa(
        masks.MultiHeadMask([mask.for_kernel(time)] * (heads // slots)),
        block_sizes=splash.BlockSizes(block_q=block, block_kv=block),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    out: Array = jax.vmap(jax.vmap(kernel))(grouped, keys.astype(q.dtype), vals.astype(q.dtype))
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, time, heads, dim)
