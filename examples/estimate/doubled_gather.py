"""A layer with a bug: its activations are gathered twice, once for each of two matmuls.

shardbench estimate function=doubled_gather:step path=examples/estimate hw=tpu-v5e mesh=[model:16]
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P


def layer(x, up, down):
    whole = jax.lax.all_gather(x, "model", axis=1, tiled=True)
    hidden = jax.nn.gelu(whole @ up)
    hidden, x = jax.lax.optimization_barrier((hidden, x))
    again = jax.lax.all_gather(x, "model", axis=1, tiled=True)  # the bug: ``whole`` is still there
    return jax.lax.psum(hidden @ down, "model") + again


def step(mesh, tokens=512, width=4096, hidden=16384):
    """A factory: the function, and the shapes that it is called with."""
    specs = (P(None, "model"), P(None, "model"), P("model", None))
    sharded = jax.shard_map(layer, mesh=mesh, in_specs=specs, out_specs=P(None, None), check_vma=False)
    shapes = ((tokens, width), (width, hidden), (hidden, width))
    arrays = [
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=jax.sharding.NamedSharding(mesh, spec))
        for shape, spec in zip(shapes, specs, strict=True)
    ]
    return sharded, tuple(arrays)
