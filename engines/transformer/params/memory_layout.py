"""How arrays lie in the memory of a TPU, which is in tiles of the two dimensions that vary fastest.

Left to itself a TPU lays an array out so that little of its tiles is padding. A program whose loop reads it otherwise
then begins by copying all of it, in every call. Other devices have no tiles, and keep their own order.
"""

from collections.abc import Sequence
from typing import Any, Final

import jax
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

LANES: Final = 128
"""A tile has so many values of the fastest dimension."""


def laid_out(mesh: Mesh, spec: P, order: Sequence[int]) -> Format | NamedSharding:
    """How an array is split over the mesh and, on TPUs, in which order its dimensions vary, the slowest first."""
    sharding = NamedSharding(mesh, spec)
    return Format(Layout(major_to_minor=tuple(order)), sharding) if on_tpu(mesh) else sharding


def on_tpu(mesh: Mesh) -> bool:
    """Whether the devices of a mesh are TPUs, present or not."""
    return bool(mesh.devices.flat[0].platform == "tpu")


def moved(array: jax.Array, wanted: Format | NamedSharding) -> jax.Array:
    """The array, moved within its devices where it does not lie as ``wanted``. Donates it."""
    described: Any = array  # JAX does not declare its attribute format
    if not isinstance(wanted, Format) or order_of(described.format) == order_of(wanted):
        return array
    there: jax.Array = jax.device_put(array, wanted, donate=True)
    return there


def order_of(wanted: Format) -> tuple[int, ...] | None:
    """The dimensions as they vary, the slowest first; None where that is the device's choice."""
    return wanted.layout.major_to_minor if isinstance(wanted.layout, Layout) else None
