"""A train step of an Equinox MLP (needs equinox).

shardbench estimate function=equinox_mlp:train_step path=examples/estimate hw=tpu-v5e mesh=[data:16]
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P


def loss(model, x, y):
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


def sgd(params, static, x, y):
    gradients = jax.grad(lambda given: loss(eqx.combine(given, static), x, y))(params)
    return jax.tree.map(lambda value, gradient: value - 1e-3 * gradient, params, gradients)


def train_step(mesh, batch=4096, width=2048, depth=4):
    """A factory: the function, and the shapes that it is called with."""
    model = eqx.filter_eval_shape(eqx.nn.MLP, width, width, 4 * width, depth, key=jax.random.key(0))
    arrays, static = eqx.partition(model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    batch_of = jax.ShapeDtypeStruct((batch, width), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    return jax.jit(lambda params, x, y: sgd(params, static, x, y)), (arrays, batch_of, batch_of)
