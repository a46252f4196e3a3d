"""What holds for every layout and every variant of collectives, those to come included."""

from itertools import combinations, product

import pytest

from engines.core.errors import InvalidRequest
from engines.core.layout import LAYOUTS, Layout, layout_of, stationary, variant_of
from engines.transformer.partition.axes import MeshAxes

MESH = (2, 3, 5)
ANY = [
    Layout("any", embed, columns, "".join(gathered))
    for embed, columns in dict.fromkeys(each.stored for each in LAYOUTS.values())
    for count in range(4)
    for gathered in combinations("xyz", count)
]
"""Every set of gathered axes on every way to store weights that there is."""


def chunks_along(axes, chip, count, sizes):
    """The block of ``range(count)`` that a chip has where it is split over ``axes``, slowest first."""
    number = shards = 0
    for axis in axes:
        number = number * sizes[axis] + chip[axis]
    shards = count // _size(axes, sizes)
    return range(number * shards, (number + 1) * shards)


def _size(axes, sizes):
    size = 1
    for axis in axes:
        size *= sizes[axis]
    return size


@pytest.mark.parametrize(
    "layout", ANY, ids=lambda each: f"{each.stored_embed or '-'}.{each.stored_ffn} {each.gathered}"
)
def test_a_vector_meets_the_columns_that_a_chip_works_on(layout):
    axes = MeshAxes(layout, MESH, "heads", 30)
    sizes = dict(zip("xyz", MESH, strict=True))
    gathered, cut = axes.vector
    for at in product(*map(range, MESH)):
        chip = dict(zip("xyz", at, strict=True))
        # All chunks of the chips that differ along the gathered axes, in their order.
        held = []
        for moved in product(*(range(sizes[axis]) for axis in gathered)):
            held += chunks_along(axes.all, {**chip, **dict(zip(gathered, moved, strict=True))}, 30, sizes)
        mine = [held[each] for each in chunks_along(cut, chip, len(held), sizes)]
        assert mine == list(chunks_along(axes.column, chip, 30, sizes))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_gathered_layout_has_a_stationary_one_on_the_same_arrays(name):
    assert stationary(LAYOUTS[name]).stored == LAYOUTS[name].stored
    assert not stationary(LAYOUTS[name]).gathered


@pytest.mark.parametrize(("find", "key"), [(layout_of, "ffn_layout"), (variant_of, "collectives")])
@pytest.mark.parametrize("name", ["auto", "zigzag"])
def test_an_unknown_name_is_an_invalid_request(find, key, name):
    with pytest.raises(InvalidRequest, match=f"{key}={name}: .*use one of "):
        find(name)
