"""A batch that a mesh does not split may be padded to one that it does."""

import pytest
from builders.workloads import workload_of
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.planner.padded import padded_batches
from bench.planner.search import search

KEYS = {"model": "llama-3-70b", "phase": "decode", "num_chips": 16, "input_len": 32768, "objective": "latency"}


def plan(batch):
    return search(workload_of(**KEYS, batch_size=batch)).chosen


@given(st.integers(1, 12), st.integers(0, 4))
@settings(max_examples=6, deadline=None)
def test_a_smaller_batch_never_takes_longer_than_a_larger_one(batch, more):
    less, all_ = plan(batch), plan(batch + more)
    assert less.latency_s <= all_.latency_s * (1 + 1e-9)
    assert less.sequences == batch <= less.point.batch_size


def test_a_padded_batch_takes_the_time_of_the_larger_one_and_yields_the_tokens_asked_for():
    seven, eight = plan(7), plan(8)
    assert seven.latency_s <= eight.latency_s
    assert seven.tokens_per_s == pytest.approx(7 * 64 / seven.latency_s)
    assert seven.to_dict()["sequences"] == 7


@pytest.mark.parametrize(
    ("batch", "mesh", "padded"),
    [
        (7, (2, 2, 4), [8, 16]),
        (8, (2, 2, 4), [16]),
        (1, (1, 1, 1), []),
        (12, (2, 2, 4), [16]),
        (16, (2, 2, 4), []),
        (5, (1, 2, 3), [6]),
    ],
)
def test_a_batch_is_padded_to_the_next_that_some_axes_split(batch, mesh, padded):
    assert padded_batches(batch, mesh) == padded
