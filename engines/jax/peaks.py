"""What this machine's devices reach: matmul rate and copy bandwidth, measured in this process."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

MEASURE_S: Final = 0.3
MATRIX_SIZE: Final = 1024
COPY_BYTES: Final = 1 << 28
"""All devices' arrays together: beyond any processor's cache."""


@cache
def measured_peaks(mesh: Mesh, dtype: str) -> tuple[float, float]:
    """(FLOP/s, bytes/s) of one of the mesh's devices while all of them work, the best of about 0.3 s each.

    Devices that share a processor share its rate: this is the machine's rate over the number of devices. Measured once
    a process for each mesh and dtype.
    """
    split = NamedSharding(mesh, P(("x", "y", "z")))
    devices = mesh.size

    def filled(*shape: int) -> jax.Array:
        array: jax.Array = jax.jit(lambda: jnp.full((devices, *shape), 0.5, jnp.dtype(dtype)), out_shardings=split)()
        return array

    square = filled(MATRIX_SIZE, MATRIX_SIZE)
    matmul_s = _best_s(jax.jit(lambda a: jnp.einsum("nij,njk->nik", a, a), out_shardings=split), square)
    count = COPY_BYTES // devices // jnp.dtype(dtype).itemsize
    long = filled(count)
    copy_s = _best_s(jax.jit(lambda a: a + jnp.ones((), a.dtype), out_shardings=split), long)
    return 2.0 * MATRIX_SIZE**3 / matmul_s, 2.0 * count * jnp.dtype(dtype).itemsize / copy_s


def _best_s(work: Callable[[Any], Any], argument: Any) -> float:
    """The shortest run in seconds, of at least three after one that compiles."""
    jax.block_until_ready(work(argument))
    best, runs = float("inf"), 0
    end = time.perf_counter() + MEASURE_S
    while runs < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(work(argument))
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best
