"""JAX's flash attention for TPUs, a Pallas kernel, by shapes alone.

shardbench estimate function=flash_attention:attend path=examples/estimate hw=tpu-v6e num_chips=1
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.flash_attention import flash_attention


def attend(batch=4, heads=16, length=4096, head_dim=128):
    """A factory: the kernel, and the shapes that it is called with."""
    heads_of = jax.ShapeDtypeStruct((batch, heads, length, head_dim), jnp.bfloat16)
    return jax.jit(lambda q, k, v: flash_attention(q, k, v, causal=True)), (heads_of, heads_of, heads_of)
