"""A train step of a plain MLP, its batch split over data and its matrices over model.

shardbench estimate function=mlp:train_step path=examples/estimate hw=tpu-v5e mesh=[data:2,model:8]
"""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P


def loss(params, x, y):
    hidden = jax.nn.gelu(x @ params["up"])
    return jnp.mean((hidden @ params["down"] - y) ** 2)


def sgd(params, x, y):
    gradients = jax.grad(loss)(params, x, y)
    return jax.tree.map(lambda value, gradient: value - 1e-3 * gradient, params, gradients)


def train_step(mesh, batch=2048, width=4096, hidden=16384):
    """A factory: the function, and the shapes that it is called with."""

    def array(shape, *spec):
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, P(*spec)))

    params = {"up": array((width, hidden), None, "model"), "down": array((hidden, width), "model", None)}
    return jax.jit(sgd, donate_argnums=0), (params, array((batch, width), "data"), array((batch, width), "data"))
