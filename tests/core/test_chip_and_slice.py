"""Datasheets and slices."""

import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.sweep.catalog import load_chip, load_group, names
from engines.core.chip import Chip
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.slice import Slice, chip_counts, slice_of

CHIPS = names("hw")
PUBLISHED = {"tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu-7x", "a100-80gb", "h100-80gb", "h200", "b200", "cpu"}
"""Chips that stored rows and published tables name."""


def test_no_chip_that_rows_name_is_missing():
    assert set(CHIPS) >= PUBLISHED


@pytest.mark.parametrize("name", CHIPS)
def test_every_figure_has_a_source(name):
    content = load_group("hw", name)
    figures = {field.name for field in fields(Chip)} - {"name", "kind", "sources"}
    stated = {key for key in figures & content.keys() if content[key] not in (None, {})}
    assert stated <= content["sources"].keys()


@pytest.mark.parametrize("name", ["tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu-7x"])
def test_peak_is_whole_matrix_units_times_clock(name):
    chip = load_chip(name)
    side = 256 if name in ("tpu-v6e", "tpu-7x") else 128
    units = chip.peak("bfloat16") / (side * side * 2 * chip.clock_hz)
    assert units == pytest.approx(round(units), rel=0.005)


def test_links_of_v4_are_the_papers():
    chip = load_chip("tpu-v4")
    assert chip.link_bytes_per_s * 2 * chip.torus_dims == 270e9


def test_a_peak_that_no_datasheet_states_is_unsupported():
    with pytest.raises(Unsupported, match="float32"):
        load_chip("tpu-v4").peak("float32")


@pytest.mark.parametrize(
    ("chip", "num_chips", "shape"),
    [
        ("tpu-v4", 64, (4, 4, 4)),
        ("tpu-v4", 4, (1, 2, 2)),
        ("tpu-v4", 128, (4, 4, 8)),
        ("tpu-v4", 256, (4, 8, 8)),
        ("tpu-v5e", 32, (4, 8, 1)),
        ("tpu-v6e", 256, (16, 16, 1)),
        ("a100-80gb", 24, (2, 3, 4)),
        ("cpu", 8, (2, 2, 2)),
        ("cpu", 7, (1, 1, 7)),
    ],
)
def test_default_shapes(chip, num_chips, shape):
    assert slice_of(load_chip(chip), num_chips).mesh_shape == shape


@pytest.mark.parametrize(
    ("chip", "num_chips", "near"),
    [
        ("tpu-v4", 7, "4 and 8"),
        ("tpu-v4", 65, "64 and 128"),
        ("tpu-v5e", 48, "32 and 64"),
        ("a100-80gb", 12, "8 and 16"),
    ],
)
def test_a_count_that_is_no_slice_names_the_nearest(chip, num_chips, near):
    with pytest.raises(InvalidRequest, match=f"num_chips={num_chips}.*{near}"):
        slice_of(load_chip(chip), num_chips)


@pytest.mark.parametrize("shape", [(2, 4, 8), (4, 4, 5), (4, 4, 4, 1), (-4, -4, 4)])
def test_a_mesh_that_is_no_slice_is_refused(shape):
    with pytest.raises(InvalidRequest, match="mesh_shape"):
        slice_of(load_chip("tpu-v4"), 64, shape)


def test_a_mesh_may_be_turned():
    assert slice_of(load_chip("tpu-v4"), 128, (8, 4, 4)).mesh_shape == (8, 4, 4)


def test_which_axes_wrap():
    assert Slice(load_chip("tpu-v4"), (2, 4, 8)).wrap == (False, True, True)
    assert Slice(load_chip("tpu-v5e"), (8, 16, 1)).wrap == (False, True, False)
    assert Slice(load_chip("h200"), (2, 2, 2)).wrap == (False, False, False)


@given(chip=st.sampled_from(CHIPS), index=st.integers(0, 30))
def test_every_listed_count_makes_a_slice_of_that_many(chip, index):
    counts = chip_counts(load_chip("tpu-v5e" if chip == "cpu" else chip))
    count = counts[index % len(counts)]
    found = slice_of(load_chip("tpu-v5e" if chip == "cpu" else chip), count)
    assert math.prod(found.mesh_shape) == found.num_chips == count
