"""Sequences that have come to different lengths: what is written where, and what their tokens see."""

import jax.numpy as jnp
import numpy as np
import pytest

from engines.transformer.layers.mask import QueryBlock
from engines.transformer.layers.own_mask import OwnCausal
from engines.transformer.layers.own_positions import MOST_UNROLLED, _at_once, _by_sequence

LAYERS, SLOTS, TIME, DIM, HELD = 3, 2, 3, 4, 9


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("batch", [3, MOST_UNROLLED + 1])
def test_both_ways_write_each_sequence_s_tokens_where_it_stands(batch, folds):
    rng = np.random.default_rng(0)
    held = rng.normal(size=(LAYERS, batch, SLOTS, HELD, DIM)).astype(np.float32)
    new = rng.normal(size=(batch, SLOTS, TIME, DIM)).astype(np.float32)
    start = rng.integers(0, HELD - TIME + 1, batch)
    expected = held.copy()
    for row, first in enumerate(start):
        expected[1, row, :, first : first + TIME] = new[row]

    def lies(array):
        return array.reshape(LAYERS, batch * SLOTS, 1, *array.shape[3:]) if folds else array

    cache = {"k": jnp.asarray(lies(held)), "k_scale": jnp.asarray(lies(held[..., 0]))}
    parts = {"k": jnp.asarray(new), "k_scale": jnp.asarray(new[..., 0])}
    for write in (_by_sequence, _at_once):
        written = write(cache, parts, jnp.asarray(start), jnp.asarray(1), folds=folds)
        assert np.array_equal(written["k"], lies(expected))
        assert np.array_equal(written["k_scale"], lies(expected[..., 0]))


def test_each_sequence_sees_its_own_past_by_hand():
    mask = OwnCausal(jnp.asarray([0, 2]))
    seen = mask.seen(jnp.arange(4)[None], QueryBlock(2))
    assert seen.shape == (2, 1, 1, 2, 4)
    assert seen[:, 0, 0].astype(int).tolist() == [[[1, 0, 0, 0], [1, 1, 0, 0]], [[1, 1, 1, 0], [1, 1, 1, 1]]]
    assert mask.distance(jnp.arange(4)[None], QueryBlock(1))[1, 0, 0].tolist() == [[-2, -1, 0, 1]]
