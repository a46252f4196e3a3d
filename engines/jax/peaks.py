"""Peak matmul rate and copy bandwidth of this machine's devices, measured in this process."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

MEASURE_S: Final = 0.3


class Sizes(NamedTuple):
    """Rows of a square matrix; bytes to copy, ``shared`` by all devices or on each; runs dispatched as one chain."""

    matrix: int
    copy_bytes: int
    shared: bool
    chained: int


ON_HOST: Final = Sizes(1024, 1 << 28, True, 1)
ON_ACCELERATOR: Final = Sizes(8192, 1 << 30, False, 8)
"""Larger than any cache, and long enough that launch latency does not count."""


def measured_peaks(mesh: Mesh, dtype: str) -> tuple[float, float] | None:
    """(FLOP/s, bytes/s read and written) of one of the mesh's devices while all of them work, the best of 0.3 s each.

    Virtual devices share the CPU: the figure is the machine's rate divided by the number of devices. Measured once per
    process for each mesh and dtype. None where the devices have too little free memory for it.
    """
    try:
        return _peaks(mesh, dtype, ON_HOST if mesh.devices.flat[0].platform == "cpu" else ON_ACCELERATOR)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


@cache
def _peaks(mesh: Mesh, dtype: str, sizes: Sizes) -> tuple[float, float]:
    split = NamedSharding(mesh, P(("x", "y", "z")))
    devices, kind = mesh.size, jnp.dtype(dtype)

    def random_array(*shape: int) -> jax.Array:
        # Random values: on constant data a chip draws less power and runs faster than on weights.
        key, whole = jax.random.key(0), (devices, *shape)
        generate = jax.jit(lambda: _random(key, whole, kind), out_shardings=split)
        array: jax.Array = generate()
        return array

    square = random_array(sizes.matrix, sizes.matrix)
    product = jax.jit(_product, out_shardings=split)
    matmul_s = _best_s(lambda a: product(a, square), square, sizes.chained)
    count = sizes.copy_bytes // kind.itemsize // (devices if sizes.shared else 1)
    # In place, so that a chain needs only the memory of one run.
    copy = jax.jit(lambda a: a + jnp.ones((), kind), out_shardings=split, donate_argnums=0)
    copy_s = _best_s(copy, random_array(count), sizes.chained)
    return 2.0 * sizes.matrix**3 / matmul_s, 2.0 * count * kind.itemsize / copy_s


def _random(key: jax.Array, shape: tuple[int, ...], kind: Any) -> jax.Array:
    if jnp.issubdtype(kind, jnp.integer):
        return jax.random.randint(key, shape, -127, 128, kind)
    return jax.random.normal(key, shape, kind)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """[n, i, j] · [n, j, k], scaled so that it can be repeated; integers keep the low bits of their sums."""
    if jnp.issubdtype(a.dtype, jnp.integer):
        return jnp.einsum("nij,njk->nik", a, b, preferred_element_type=jnp.int32).astype(a.dtype)
    return jnp.einsum("nij,njk->nik", a, b) * jnp.asarray(a.shape[-1] ** -0.5, a.dtype)


def _best_s(work: Callable[[Any], Any], value: Any, chained: int) -> float:
    """The shortest time of one run in seconds, over at least three chains after a run that compiles."""
    value = jax.block_until_ready(work(value))
    best, chains = float("inf"), 0
    end = time.perf_counter() + MEASURE_S
    while chains < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(chained):
            value = work(value)
        jax.block_until_ready(value)
        best, chains = min(best, (time.perf_counter() - start) / chained), chains + 1
    return best
