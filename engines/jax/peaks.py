"""Peak matmul rate and copy bandwidth of this machine's devices, measured in this process."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from engines.transformer.params.quantize import stored_dtype

MEASURE_S: Final = 0.3
LONGEST_S: Final = 1.0
"""Expected time of one matmul up to which it is measured."""


class Sizes(NamedTuple):
    """Sides of square matrices; bytes to copy, over all devices or on each; runs that are started and awaited as one.

    ``shared``: the devices share one processor and one memory.
    """

    matrices: tuple[int, ...]
    copy_bytes: int
    shared: bool
    chained: int


Product = tuple[int, int, int]
"""Sizes m, k, n of a matmul [m, k]·[k, n]."""

ON_HOST: Final = Sizes((512, 1024), 1 << 28, True, 1)
"""Several sides, since none is the best for every number of threads; larger ones reach no more and take long."""
ON_ACCELERATOR: Final = Sizes((8192,), 1 << 30, False, 8)
"""Beyond any cache, and so much at once that starting the work does not count."""


def measured_peaks(
    mesh: Mesh, dtype: str, product: Product, most_copied: int | None = None
) -> tuple[float, float] | None:
    """(FLOP/s, bytes/s read and written) of one of the mesh's devices while all of them work, the best of 0.3 s each.

    Devices that share a processor share its rate. It is the best that matmuls reach on all of them together or on one
    of them alone, which has all threads: several squares, and the timed program's own ``product`` (up to
    :data:`LONGEST_S`). So no program that consists of such matmuls exceeds it. Each matmul and the copy are measured
    once a process for each mesh and dtype. A copy on a host takes several times its bytes: a program that is to fit in
    little memory says how many it may be (``most_copied``), of those that no cache holds. None where the devices have
    too little memory left for it.
    """
    try:
        on_host = mesh.devices.flat[0].platform == "cpu"
        sizes = ON_HOST if on_host else ON_ACCELERATOR
        if on_host and most_copied is not None:
            sizes = sizes._replace(copy_bytes=min(sizes.copy_bytes, most_copied))
        return _peaks(mesh, dtype, sizes, product if on_host else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


@cache
def _peaks(mesh: Mesh, dtype: str, sizes: Sizes, product: Product | None = None) -> tuple[float, float]:
    devices, kind = mesh.size, stored_dtype(dtype)
    products = [(side, side, side) for side in sizes.matrices] + ([product] if product else [])
    flops_per_s = _best_flops_per_s(mesh, products, kind, sizes.chained)
    if sizes.shared and devices > 1:
        flops_per_s = max(flops_per_s, _best_flops_per_s(_one_device(mesh), products, kind, sizes.chained) / devices)
    return flops_per_s, _copy_bytes_per_s(mesh, kind, sizes)


@cache
def _copy_bytes_per_s(mesh: Mesh, kind: Any, sizes: Sizes) -> float:
    """Bytes read and written per second by each device while all of them copy."""
    count = sizes.copy_bytes // kind.itemsize // (mesh.size if sizes.shared else 1)
    # In place, so that a chain needs no more memory than one run.
    copy = jax.jit(lambda a: a + jnp.ones((), kind), out_shardings=_split(mesh), donate_argnums=0)
    seconds = _best_s(copy, _drawn(mesh, kind, count), sizes.chained)
    return float(2.0 * count * kind.itemsize / seconds)


def _best_flops_per_s(mesh: Mesh, products: Sequence[Product], kind: Any, chained: int) -> float:
    """The best rate of the matmuls, the smallest first. Where a dtype has no fast matmul, large ones are left out."""
    best = 0.0
    for m, k, n in products:
        if not best or 2.0 * m * k * n / best <= LONGEST_S:
            best = max(best, _matmul_flops_per_s(mesh, (m, k, n), kind, chained))
    return best


def _one_device(mesh: Mesh) -> Mesh:
    """A mesh of one device of this process."""
    mine = next(each for each in mesh.devices.flat if each.process_index == jax.process_index())
    return Mesh(np.array([mine]).reshape((1,) * len(mesh.axis_names)), mesh.axis_names)


def _split(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(mesh.axis_names))


def _drawn(mesh: Mesh, kind: Any, *shape: int) -> jax.Array:
    # Random values: on constant data a chip draws less power and runs faster than on weights.
    key, whole = jax.random.key(0), (mesh.size, *shape)
    draw = jax.jit(lambda: _random(key, whole, kind), out_shardings=_split(mesh))
    array: jax.Array = draw()
    return array


@cache
def _matmul_flops_per_s(mesh: Mesh, product: Product, kind: Any, chained: int) -> float:
    """One device's rate of [m, k]·[k, n] while all of the mesh's devices work. Squares run in a chain."""
    m, k, n = product
    first = _drawn(mesh, kind, m, k)
    second = first if m == k == n else _drawn(mesh, kind, k, n)
    multiply = jax.jit(_product, out_shardings=_split(mesh))
    if m == k == n:
        seconds = _best_s(lambda a: multiply(a, second), first, chained)
    else:
        seconds = _best_s(lambda _: multiply(first, second), first, chained)
    return 2.0 * m * k * n / seconds


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
