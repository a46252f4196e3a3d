"""Memory layouts on a TPU, which stores arrays in tiles of the two fastest-varying dimensions.

By default a TPU chooses the layout with the least padding. If the program's loop reads the array in another layout,
every call starts with a copy of the whole array. Other devices have no tiles and keep their default layout.
"""

from collections.abc import Sequence
from typing import Any, Final

import jax
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

LANES: Final = 128
"""Values of the fastest dimension in a tile."""
SUBLANES: Final = 8
"""Rows of a tile of 32-bit values."""


def array_format(mesh: Mesh, spec: P, order: Sequence[int]) -> Format | NamedSharding:
    """The sharding of an array and, on TPUs, its memory layout: the ``order`` of dimensions, slowest first."""
    sharding = NamedSharding(mesh, spec)
    return Format(Layout(major_to_minor=tuple(order)), sharding) if on_tpu(mesh) else sharding


def on_tpu(mesh: Mesh) -> bool:
    """Whether the devices of a mesh are TPUs, whether they are present or not."""
    return bool(mesh.devices.flat[0].platform == "tpu")


def relayout(array: jax.Array, wanted: Format | NamedSharding) -> jax.Array:
    """The array in the ``wanted`` memory layout, copied on its devices if it has another one. Donates it."""
    described: Any = array  # JAX does not declare its attribute format
    if not isinstance(wanted, Format) or order_of(described.format) == order_of(wanted):
        return array
    copied: jax.Array = jax.device_put(array, wanted, donate=True)
    return copied


def order_of(wanted: Format) -> tuple[int, ...] | None:
    """The dimensions, slowest first; None where the layout is the device's choice."""
    return wanted.layout.major_to_minor if isinstance(wanted.layout, Layout) else None
