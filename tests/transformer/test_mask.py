"""What every mask owes the softmax paths and the kernel: one answer to which keys a query sees."""

import numpy as np
import pytest

from engines.transformer.layers.mask import Causal, Everything, QueryBlock

TIME, LIMIT = 7, 14
MASKS = {
    "causal": Causal(0),
    "later": Causal(4),
    "packed": Causal(0, np.asarray([0, 0, 2, 2, 2, 5, 5])),
    "everything": Everything(),
}


def seen_by_all(mask, limit=LIMIT):
    seen = np.asarray(mask.seen(np.arange(limit)[None, :], QueryBlock(TIME)))
    return np.broadcast_to(seen, (TIME, limit))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("keys", [1, 3, 20])
@pytest.mark.parametrize("queries", [1, 2, 7])
def test_the_blocks_that_are_visited_are_those_with_a_key_that_is_seen(mask, queries, keys):
    seen = seen_by_all(mask)
    begins, ends = (np.asarray(each) for each in mask.key_blocks(queries, TIME, keys, LIMIT))
    for part, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        columns = np.flatnonzero(seen[part * queries : (part + 1) * queries].any(axis=0))
        assert (begin, end) == (columns[0] // keys, columns[-1] // keys + 1)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_block_of_queries_sees_what_it_sees_among_all(mask):
    for start, count in [(0, 2), (3, 3), (6, 1)]:
        block = np.asarray(mask.seen(np.arange(LIMIT)[None, :], QueryBlock(count, start)))
        assert np.array_equal(np.broadcast_to(block, (count, LIMIT)), seen_by_all(mask)[start : start + count])


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_queries_behind_the_last_change_nothing_for_those_before(mask):
    padded = np.asarray(mask.padded(TIME + 2).seen(np.arange(LIMIT)[None, :], QueryBlock(TIME + 2)))
    assert np.array_equal(np.broadcast_to(padded, (TIME + 2, LIMIT))[:TIME], seen_by_all(mask))


@pytest.mark.parametrize("mask", [each for each in MASKS.values() if each.is_whole_prompt])
def test_the_kernel_s_mask_is_the_same(mask):
    pytest.importorskip("jax.experimental.pallas.ops.tpu.splash_attention")
    assert np.array_equal(mask.for_kernel(TIME)[:, :], seen_by_all(mask, TIME))
