"""A train step of a Flax NNX MLP (needs flax).

shardbench estimate function=flax_mlp:train_step path=examples/estimate hw=tpu-v5e mesh=[data:16]
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P


class Mlp(nnx.Module):
    def __init__(self, width, hidden, rngs):
        self.up = nnx.Linear(width, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x):
        return self.down(nnx.gelu(self.up(x)))


def train_step(mesh, batch=4096, width=2048, hidden=8192):
    """A factory: the function, and the shapes that it is called with."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Mlp(width, hidden, nnx.Rngs(0))))

    def loss(state, x, y):
        return jnp.mean((nnx.merge(graph, state)(x) - y) ** 2)

    def sgd(state, x, y):
        gradients = jax.grad(loss)(state, x, y)
        return jax.tree.map(lambda value, gradient: value - 1e-3 * gradient, state, gradients)

    batch_of = jax.ShapeDtypeStruct((batch, width), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    return jax.jit(sgd, donate_argnums=0), (state, batch_of, batch_of)
