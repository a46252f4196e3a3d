"""The rows that experts read: copies of tokens, sorted by expert.

Every token has a copy for each expert that it chose, and n copies are sorted by *group*, the expert's number among
those here; copies of experts that are elsewhere have the number of groups itself and come last.
"""

import math
from typing import Final, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

ROOM_TILE: Final = 16
"""Room for rows is a multiple of it: the rows of a TPU's tile of bfloat16."""
DEVIATIONS: Final = 5.0
SPARE_ROWS: Final = 4


class Rows(NamedTuple):
    """``order`` [n]: the copy that is sorted to each place; ``places`` [n]: each copy's place; ``sizes`` [groups]."""

    order: Array
    places: Array
    sizes: Array

    @property
    def starts(self) -> Array:
        """[groups] the place of each group's first row."""
        return jnp.cumsum(self.sizes) - self.sizes

    @property
    def total(self) -> Array:
        """Rows of all groups, which come first."""
        return self.sizes.sum()


def sort_by_group(groups: Array, count: int) -> Rows:
    """``groups`` [n], each below ``count`` or equal to it → the rows, each group's in the order in which they came."""
    n = len(groups)
    sizes = (groups[:, None] == jnp.arange(count, dtype=groups.dtype)).sum(0, dtype=jnp.int32)
    numbers = jnp.arange(n, dtype=jnp.int32)
    _, order = lax.sort((groups.astype(jnp.int32), numbers), num_keys=1, is_stable=True)
    _, places = lax.sort((order, numbers), num_keys=1, is_stable=False)
    return Rows(order, places, sizes)


def group_of_row(sizes: Array, places: Array) -> Array:
    """The group at each of ``places``; the number of groups behind the last."""
    return (places[:, None] >= jnp.cumsum(sizes)).sum(1, dtype=jnp.int32)


def room_for(mean: float, most: int) -> int:
    """Rows to make room for where ``mean`` are expected and ``most`` may come.

    Of choices that are balanced, the number varies as a Poisson variable does, by the root of its mean. Five times that
    is passed once in 10⁶ times or less, and then by rows that take another turn.
    """
    wanted = mean + DEVIATIONS * math.sqrt(mean) + SPARE_ROWS
    return min(most, math.ceil(wanted / ROOM_TILE) * ROOM_TILE)


def into_buffers(rows: Rows, capacity: int, first: Array | int = 0) -> tuple[Array, Array]:
    """(copy [groups, capacity] of each slot, whether there is one): copies of each group from its ``first`` on."""
    slots = first + jnp.arange(capacity, dtype=jnp.int32)
    places = jnp.minimum(rows.starts[:, None] + slots, len(rows.order) - 1)
    return rows.order[places], slots < rows.sizes[:, None]


def slot_of_copy(rows: Rows, groups: Array, capacity: int) -> tuple[Array, Array]:
    """(slot of each copy in buffers [groups · capacity], whether it has one); ``groups`` as they were sorted."""
    count = len(rows.sizes)
    known = jnp.minimum(groups, count - 1)
    rank = rows.places - rows.starts[known]
    return known * capacity + jnp.minimum(rank, capacity - 1), (rank < capacity) & (groups < count)
