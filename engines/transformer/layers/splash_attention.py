"""Splash attention, a TPU kernel for whole prompts from JAX's Pallas kernels.

Tests compile it ahead of time for TPUs and check its results in Pallas's interpreter; it has not been timed on a TPU.
"""

import math
from typing import Final

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from engines.transformer.layers.mask import Mask

MAX_BLOCK: Final = 1024
"""Largest number of queries and of keys in a block: more would not fit in VMEM with their scores."""


def kernel_attend(
    q: Array,
    keys: Array,
    vals: Array,
    mask: Mask,
    sinks: Array | None = None,
    softcap: float | None = None,
    *,
    interpret: bool = False,
) -> Array:
    """q: [batch, time, heads, dim], keys and vals: [batch, slots, time, dim] → [batch, time, heads, dim].

    ``mask`` is that of a whole prompt. ``time`` is a multiple of 128. Queries are scaled for exponentials in base 2, as
    ``sinks`` [1, slots, group, 1, 1] are; the kernel uses base e, as ``softcap`` does.
    """
    batch, time, heads, dim = q.shape
    slots = keys.shape[1]
    scaled = (q.astype(jnp.float32) * math.log(2)).astype(q.dtype)
    grouped = scaled.reshape(batch, time, slots, heads // slots, dim).transpose(0, 2, 3, 1, 4)
    block = math.gcd(time, MAX_BLOCK)
    kernel = splash.make_splash_mqa(
        masks.MultiHeadMask([mask.for_kernel(time)] * (heads // slots)),
        block_sizes=splash.BlockSizes(block_q=block, block_kv=block),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=softcap,
        interpret=interpret,
    )
    if sinks is None:
        out: Array = jax.vmap(jax.vmap(kernel))(grouped, keys.astype(q.dtype), vals.astype(q.dtype))
    else:
        natural = sinks.reshape(slots, heads // slots) * math.log(2)

        def attended(q: Array, keys: Array, vals: Array, sinks: Array) -> Array:
            one: Array = kernel(q, keys, vals, sinks=sinks)
            return one

        of_slots = jax.vmap(jax.vmap(attended), (0, 0, 0, None))
        out = of_slots(grouped, keys.astype(q.dtype), vals.astype(q.dtype), natural)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, time, heads, dim)
