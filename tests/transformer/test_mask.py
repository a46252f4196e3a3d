"""What every mask owes the softmax paths and the kernel: one answer to which keys a query sees."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.transformer.layers.mask import Behind, Causal, QueryBlock, Window
from engines.transformer.layers.rolled_mask import Rolled

TIME, LIMIT = 7, 14
PACKED = np.asarray([0, 0, 2, 2, 2, 5, 5])
MASKS = {
    "causal": Causal(0),
    "later": Causal(4),
    "packed": Causal(0, PACKED),
    "everything": Behind(length=LIMIT),
    "window": Causal(0, window=Window(3, chunked=False)),
    "chunks": Causal(0, window=Window(3, chunked=True)),
    "later window": Causal(4, window=Window(5, chunked=False)),
    "later chunks": Causal(4, window=Window(4, chunked=True, origin=2)),
    "packed window": Causal(0, PACKED, Window(3, chunked=False)),
    "packed chunks": Causal(0, PACKED, Window(2, chunked=True)),
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


@settings(max_examples=12, deadline=None)
@given(
    start=st.integers(0, 20),
    time=st.integers(1, 5),
    size=st.integers(1, 6),
    chunked=st.booleans(),
    origin=st.integers(0, 4),
)
def test_a_rolling_cache_and_new_keys_show_what_all_keys_in_order_do(start, time, size, chunked, origin):
    plain = Causal(start, window=Window(size, chunked, origin))
    every = np.arange(start + time)[None, :]
    wanted = np.asarray(plain.seen(every, QueryBlock(time)))
    slots = {position % size: position for position in range(start)}
    positions = [slots.get(slot) for slot in range(size)] + list(range(start, start + time))
    rolled = Rolled(plain, length=size, held=size, written=0)
    seen = np.asarray(rolled.seen(np.arange(size + time)[None, :], QueryBlock(time)))
    for query in range(time):
        shown = {at for at, sees in zip(positions, seen[query], strict=True) if sees}
        assert shown == set(np.flatnonzero(wanted[query]))
    apart = np.asarray(rolled.distance(np.arange(size, size + time)[None, :], QueryBlock(time)))
    assert np.array_equal(apart, np.arange(time)[None, :] - np.arange(time)[:, None])


@settings(max_examples=12, deadline=None)
@given(
    prefix=st.integers(1, 9),
    own=st.integers(0, 5),
    time=st.integers(1, 3),
    size=st.integers(1, 6),
    chunked=st.booleans(),
)
def test_queries_behind_a_prefix_see_of_it_what_they_would_see_in_one_sequence(prefix, own, time, size, chunked):
    whole = Causal(prefix + own, window=Window(size, chunked))
    wanted = np.asarray(whole.seen(np.arange(prefix)[None, :], QueryBlock(time)))
    held = min(size, prefix)
    behind = Causal(own, window=Window(size, chunked, prefix)).of_prefix(time, prefix, held)
    seen = np.asarray(behind.seen(np.arange(held)[None, :], QueryBlock(2 * time)))
    at = [max(each for each in range(prefix) if each % held == slot) for slot in range(held)]
    for query in range(2 * time):
        shown = {position for position, sees in zip(at, seen[query], strict=True) if sees}
        assert shown == set(np.flatnonzero(wanted[query % time]))
